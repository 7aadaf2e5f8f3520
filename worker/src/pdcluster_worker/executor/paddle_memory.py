"""How many KV blocks, and how long a request may be: pure decisions from sizes."""

from dataclasses import dataclass

from pdcluster_worker.config import EngineConfig
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.kv.layout import ITEM_BYTES
from pdcluster_worker.models.config import ModelConfig

CPU_KV_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class KVSize:
    num_blocks: int
    max_model_length: int


def bytes_per_block(model: ModelConfig, block_size: int, dtype: str) -> int:
    """One block over all layers, K and V."""
    return 2 * model.layers * model.kv_size * block_size * ITEM_BYTES[dtype]


def kv_size(model: ModelConfig, engine: EngineConfig, dtype: str, free_bytes: int | None) -> KVSize:
    """`free_bytes`: device memory that KV may take; None on a CPU. Raises ConfigError when one request cannot fit."""
    if engine.block_size < 1:
        raise ConfigError(f"--block-size must be at least 1, not {engine.block_size}")
    length = engine.max_model_length or model.max_position
    if length > model.max_position:
        raise ConfigError(
            f"--max-model-length {length} is over the {model.max_position} positions that the model was made for"
        )
    needed = -(-length // engine.block_size)
    block_bytes = bytes_per_block(model, engine.block_size, dtype)
    blocks, reason = _blocks(engine, needed, block_bytes, free_bytes)
    if blocks < needed:
        raise ConfigError(
            f"one request of --max-model-length {length} needs {needed} KV blocks of {engine.block_size} tokens "
            f"({needed * block_bytes >> 20} MiB), but there are {blocks} ({reason}): "
            f"lower --max-model-length to at most {blocks * engine.block_size}, or set --kv-blocks"
        )
    return KVSize(blocks, length)


def _blocks(engine: EngineConfig, needed: int, block_bytes: int, free_bytes: int | None) -> tuple[int, str]:
    if engine.kv_blocks is not None:
        return engine.kv_blocks, "--kv-blocks"
    if free_bytes is None:
        by_requests = engine.max_running_requests * needed
        return min(by_requests, CPU_KV_BYTES // block_bytes), f"the CPU default of {CPU_KV_BYTES >> 20} MiB"
    return free_bytes // block_bytes, f"--memory-utilization {engine.memory_utilization}"
