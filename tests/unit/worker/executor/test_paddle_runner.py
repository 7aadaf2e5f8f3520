"""The Paddle runner against a plain NumPy implementation, on random checkpoints of every variant."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy_reference
import pytest
from model_checkpoints import random_tensors, restored, tiny_config, write_checkpoint, write_sharded
from model_runs import Driver, executor_config, generate, paddle_runner

from pdcluster_worker.core.events import NO_TOKEN
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.executor.runner import ModelRunner

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "ernie": {},
    "ernie untied": {"tie_word_embeddings": False},
    "ernie with biases": {"use_bias": True},
    "ernie with one KV head": {"num_key_value_heads": 1},
    "ernie without GQA": {"num_key_value_heads": 4},
    "ernie, heads wider than hidden": {"head_dim": 24},
    "ernie, odd sizes": {"hidden_size": 44, "head_dim": 6, "intermediate_size": 50, "num_attention_heads": 6},
    "ernie, theta in rope_parameters": {"rope_theta": None, "rope_parameters": {"rope_theta": 77.0}},
    "ernie without head_dim": {"head_dim": None},
    "ernie, one layer": {"num_hidden_layers": 1},
    "llama": {"family": "llama"},
    "llama untied": {"family": "llama", "tie_word_embeddings": False},
    "llama with all biases": {"family": "llama", "attention_bias": True, "mlp_bias": True},
    "llama with attention biases": {"family": "llama", "attention_bias": True},
    "llama, one KV head, wide": {"family": "llama", "num_key_value_heads": 1, "head_dim": 20},
    "llama without KV head count": {"family": "llama", "num_key_value_heads": None},
    "llama, other theta": {"family": "llama", "rope_theta": 500.0},
    "llama, linear scaling": {"family": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama, llama3 scaling": {"family": "llama", "rope_scaling": LLAMA3},
}
PROMPT = [int(token) for token in np.random.default_rng(7).integers(0, 96, 41)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_of_every_variant(variant: str, tmp_path: Path) -> None:
    config = tiny_config(**VARIANTS[variant])
    runner = paddle_runner(write_checkpoint(tmp_path, config, seed=3), block_size=8, kv_blocks=64)
    weights = dict(random_tensors(config, seed=3))
    driver = Driver(runner)
    sequence = driver.sequence(PROMPT, 8)
    driver.step([(sequence, 20)])
    computed = runner.logits(driver.batch([(sequence, len(PROMPT) - 20)]))  # type: ignore[attr-defined]
    np.testing.assert_allclose(computed[0], numpy_reference.logits(config, weights, PROMPT)[-1], atol=2e-4, rtol=1e-4)
    assert generate(runner, PROMPT, 12, budget=13) == numpy_reference.greedy(config, weights, PROMPT, 12)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
@pytest.mark.parametrize("shards", [1, 3])
def test_half_precision_and_shards(dtype: str, shards: int, tmp_path: Path) -> None:
    config = tiny_config("llama", tie_word_embeddings=False)
    runner = paddle_runner(write_sharded(tmp_path, config, shards, dtype=dtype), block_size=16, kv_blocks=64)
    weights = {name: restored(values, dtype) for name, values in random_tensors(config)}
    assert generate(runner, PROMPT, 12) == numpy_reference.greedy(config, weights, PROMPT, 12)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> ModelRunner:
    config = tiny_config(num_hidden_layers=3)
    return paddle_runner(write_checkpoint(tmp_path_factory.mktemp("model"), config), block_size=8, kv_blocks=200)


def test_tokens_do_not_depend_on_what_else_is_in_the_batch(runner: ModelRunner) -> None:
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, 96, int(length)).tolist() for length in generator.integers(1, 60, 12)]
    alone = [generate(runner, prompt, 10) for prompt in prompts]
    for budget in (1 << 20, 37, 5):
        driver = Driver(runner, seed=budget)
        together = [driver.sequence(prompt, 10) for prompt in prompts]
        driver.generate(together, 10, budget)
        assert [sequence.output for sequence in together] == alone


def test_each_layer_is_reported_once_in_order_with_its_kv_in_place(runner: ModelRunner) -> None:
    driver = Driver(runner)
    seen: list[tuple[int, bool]] = []
    sequence = driver.sequence([5, 6, 7], 1)
    batch = driver.batch([(sequence, 3)])

    def on_layer(layer: int) -> None:
        keys = region(runner, layer)[0, sequence.blocks[0], :, :3]
        seen.append((layer, bool(np.all(np.any(keys != 0, axis=-1)))))

    runner.execute(batch, on_layer)
    assert seen == [(0, True), (1, True), (2, True)]


def region(runner: ModelRunner, layer: int) -> np.ndarray:
    """The KV memory as a peer sees it: by address."""
    import ctypes

    address, length, device = runner.regions()[layer]
    layout = runner.layout
    assert (length, device) == (layout.region_bytes, 0)
    flat = np.frombuffer((ctypes.c_char * length).from_address(address), np.float32)
    return flat.reshape(2, layout.num_blocks, layout.kv_heads, layout.block_size, layout.head_dim)


def test_kv_written_from_outside_is_what_is_read(runner: ModelRunner) -> None:
    """Prefill into some blocks, move their bytes to others by address, decode from there."""
    expected = generate(runner, PROMPT, 9)
    driver = Driver(runner, seed=5)
    source, target = driver.sequence(PROMPT, 9), driver.sequence(PROMPT, 9)
    driver.step([(source, len(PROMPT))])
    for layer in range(runner.layout.layers):
        memory = region(runner, layer)
        memory[:, target.blocks] = memory[:, source.blocks]
        memory[:, source.blocks] = np.nan
    target.tokens, target.computed = list(source.tokens), source.computed
    driver.generate([target], 9)
    assert target.output == expected


def test_numbers_left_in_blocks_by_others_change_nothing(runner: ModelRunner) -> None:
    """Stale KV behind the end of a context may even be no number."""
    expected = generate(runner, PROMPT, 9)
    for layer in range(runner.layout.layers):
        region(runner, layer)[...] = np.nan
    assert generate(runner, PROMPT, 9) == expected
    assert generate(runner, PROMPT, 9, budget=7) == expected
    for layer in range(runner.layout.layers):
        region(runner, layer)[...] = 0


def test_a_step_without_samples_gives_none_and_writes_every_layer(runner: ModelRunner) -> None:
    driver = Driver(runner)
    sequence = driver.sequence(PROMPT, 1)
    assert driver.step([(sequence, 10)]).tokens == []
    assert driver.layers == [0, 1, 2]


def test_progress_rises_to_one(tmp_path: Path) -> None:
    heard: list[float] = []
    paddle_runner(write_checkpoint(tmp_path, tiny_config()), heard.append, kv_blocks=64, block_size=8)
    assert heard == sorted(heard)
    assert heard[-1] == 1


def test_what_the_runner_says_of_itself(tmp_path: Path) -> None:
    config = tiny_config()
    runner = paddle_runner(write_checkpoint(tmp_path, config), kv_blocks=64, block_size=8, max_model_length=100)
    layout = runner.layout
    assert (layout.layers, layout.kv_heads, layout.head_dim, layout.block_size) == (2, 2, 8, 8)
    assert (layout.dtype, layout.num_blocks, runner.device) == ("float32", 64, "cpu")
    assert (runner.max_model_length, runner.vocab_size) == (100, 96)
    assert runner.model_bytes == 4 * sum(values.size for _, values in random_tensors(config))
    assert [length for _, length, _ in runner.regions()] == [layout.region_bytes] * 2


def test_not_a_number_is_an_error_not_a_token(tmp_path: Path) -> None:
    config = tiny_config()
    path = write_checkpoint(tmp_path, config)
    raw = bytearray((path / "model.safetensors").read_bytes())
    raw[-128:] = b"\xff" * 128  # the last tensor is the final norm
    (path / "model.safetensors").write_bytes(raw)
    runner = paddle_runner(path, block_size=8, kv_blocks=64)
    assert generate(runner, PROMPT, 1) == [NO_TOKEN]


def test_refusals_at_start(tmp_path: Path) -> None:
    from pdcluster_worker.executor.paddle_runner import PaddleRunner

    path = write_checkpoint(tmp_path, tiny_config())
    with pytest.raises(ConfigError, match="--dtype bfloat16 is not supported on a CPU"):
        paddle_runner(path, dtype="bfloat16")
    with pytest.raises(ConfigError, match=r"one request of --max-model-length 512 needs 64 KV blocks.*there are 63"):
        paddle_runner(path, block_size=8, kv_blocks=63)
    with pytest.raises(ConfigError, match="--max-model-length 513 is over the 512 positions"):
        paddle_runner(path, max_model_length=513)
    with pytest.raises(ConfigError, match="2 ranks"):
        PaddleRunner(executor_config(path, world_size=2), lambda fraction: None)
    with pytest.raises(ConfigError, match="--dtype float64"):
        PaddleRunner(executor_config(path, gpu_count=1, dtype="float64"), lambda fraction: None)


def test_two_threads_give_the_tokens_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_checkpoint(tmp_path, tiny_config(hidden_size=64, intermediate_size=2048))
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, 96, int(length)).tolist() for length in generator.integers(1, 90, 9)]
    outputs = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        driver = Driver(paddle_runner(path, block_size=8, kv_blocks=200))
        sequences = [driver.sequence(prompt, 8) for prompt in prompts]
        driver.generate(sequences, 8)
        outputs.append([sequence.output for sequence in sequences])
    assert outputs[0] == outputs[1]
