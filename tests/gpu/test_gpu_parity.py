"""The same checkpoints on a GPU and on a CPU. Skipped where Paddle finds no GPU, and nowhere else."""

import json
from pathlib import Path

import numpy as np
import pytest
from model_checkpoints import random_tensors, tiny_config, write_checkpoint
from model_runs import Driver, executor_config, paddle_runner

from pdcluster_worker.executor.runner import ModelRunner
from pdcluster_worker.models.paddle_library import paddle

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0,
        reason="no GPU that Paddle can use",
    ),
]
GOLDEN = Path(__file__).parents[1] / "golden" / "ernie45-tiny"
SHAPE = {"hidden_size": 256, "head_dim": 64, "intermediate_size": 512, "vocab_size": 512}


def gpu_runner(path: Path, dtype: str) -> ModelRunner:
    from pdcluster_worker.executor.paddle_runner import PaddleRunner

    config = executor_config(path, gpu_count=1, dtype=dtype, block_size=64, kv_blocks=64)
    return PaddleRunner(config, lambda fraction: None)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", ["ernie4_5", "llama"])
@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 1}, {"tie_word_embeddings": False}], ids=str)
def test_logits_agree_with_the_cpu(dtype: str, family: str, changes: dict[str, object], tmp_path: Path) -> None:
    """Fresh prompts, continued prompts and decodes in one step, after a step that filled their contexts."""
    path = write_checkpoint(tmp_path, tiny_config(family, **SHAPE, **changes))
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, 512, length).tolist() for length in (90, 33, 70, 1, 128)]
    results = []
    for runner in (paddle_runner(path, block_size=64, kv_blocks=64), gpu_runner(path, dtype)):
        driver = Driver(runner)
        sequences = [driver.sequence(prompt, 4) for prompt in prompts]
        driver.step([(sequences[0], 40), (sequences[1], 32)])
        work = [(sequence, sequence.behind) for sequence in sequences]
        results.append(runner.logits(driver.batch(work)))  # type: ignore[attr-defined]
    scale = np.abs(results[0]).max()
    np.testing.assert_allclose(results[1], results[0], atol=(0.04 if dtype == "bfloat16" else 0.01) * scale)


def test_first_tokens_of_the_golden_checkpoint(tmp_path: Path) -> None:
    """bfloat16 may part from float32 later, and where the two best are close."""
    runner = gpu_runner(GOLDEN, "bfloat16")
    for case in json.loads((GOLDEN / "golden.json").read_text())["cases"]:
        driver = Driver(runner)
        sequence = driver.sequence(case["prompt"], 1)
        driver.generate([sequence], 1)
        (best, first), (_, second) = case["first_step_top8"][:2]
        assert sequence.output == [best] or first - second < 0.1


def test_every_layer_is_reported_once_in_order(tmp_path: Path) -> None:
    config = tiny_config(**SHAPE)
    runner = gpu_runner(write_checkpoint(tmp_path, config), "bfloat16")
    driver = Driver(runner)
    driver.step([(driver.sequence([1, 2, 3], 1), 3)])
    assert driver.layers == [0, 1]
    assert runner.model_bytes == 2 * sum(values.size for _, values in random_tensors(config))
