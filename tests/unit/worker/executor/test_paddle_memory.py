from typing import Any

import pytest

from pdcluster_worker.config import EngineConfig
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.executor.paddle_memory import CPU_KV_BYTES, KVSize, bytes_per_block, kv_size
from pdcluster_worker.models.config import ModelConfig, RotaryConfig


def model(max_position: int = 4096) -> ModelConfig:
    return ModelConfig(
        family="llama",
        vocab_size=100,
        hidden_size=64,
        intermediate_size=64,
        layers=4,
        heads=4,
        kv_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        max_position=max_position,
        rotary=RotaryConfig(10000.0, False),
        tied_embeddings=True,
        attention_bias=False,
        mlp_bias=False,
        eos_token_ids=(2,),
    )


def size(max_position: int = 4096, free: int | None = None, dtype: str = "float32", **engine: Any) -> KVSize:
    return kv_size(model(max_position), EngineConfig(**engine), dtype, free)


def test_a_block_counts_keys_and_values_of_all_layers() -> None:
    assert bytes_per_block(model(), 64, "float32") == 2 * 4 * 32 * 64 * 4
    assert bytes_per_block(model(), 64, "bfloat16") == 2 * 4 * 32 * 64 * 2


def test_cpu_default_is_what_the_requests_need() -> None:
    assert size(max_model_length=100, max_running_requests=3, block_size=16) == KVSize(3 * 7, 100)


def test_cpu_default_is_capped() -> None:
    assert size() == KVSize(CPU_KV_BYTES // bytes_per_block(model(), 64, "float32"), 4096)


def test_length_defaults_to_the_models() -> None:
    assert size(1000).max_model_length == 1000


def test_a_device_gives_what_is_free() -> None:
    block = bytes_per_block(model(), 64, "bfloat16")
    assert size(free=block * 100 + 1, dtype="bfloat16").num_blocks == 100


def test_explicit_blocks_win() -> None:
    assert size(kv_blocks=64, free=1).num_blocks == 64


@pytest.mark.parametrize("free", [None, 1 << 20])
def test_one_request_must_fit(free: int | None) -> None:
    with pytest.raises(
        ConfigError, match=r"--max-model-length 1048576 needs 16384 KV blocks of 64 tokens \(1024 MiB\)"
    ):
        size(1 << 20, free=free)


def test_block_size_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="--block-size"):
        size(block_size=0)
