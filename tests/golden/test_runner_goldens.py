"""Greedy tokens of the runner against those of independent float32 implementations."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_runs import Driver, generate, paddle_runner

from pdcluster_worker.executor.runner import ModelRunner

HERE = Path(__file__).parent
ERNIE = HERE / "ernie45-tiny"
SMOLLM = "SmolLM2-135M-Instruct.Q4_1.gguf"


def cases(name: str) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = json.loads((HERE / name / "golden.json").read_text())["cases"]
    return loaded


@pytest.fixture(scope="module", params=[16, 64], ids=lambda size: f"blocks of {size}")
def ernie(request: pytest.FixtureRequest) -> ModelRunner:
    return paddle_runner(ERNIE, block_size=request.param, max_model_length=512, kv_blocks=160 * 64 // request.param)


@pytest.mark.parametrize("budget", [1 << 20, 16, 7, 1], ids=lambda budget: f"budget {budget}")
def test_ernie_alone_for_any_chunking_of_the_prompt(ernie: ModelRunner, budget: int) -> None:
    for case in cases("ernie45-tiny"):
        assert generate(ernie, case["prompt"], len(case["greedy"]), budget) == case["greedy"]


@pytest.mark.parametrize("budget", [1 << 20, 16, 5], ids=lambda budget: f"budget {budget}")
def test_ernie_all_cases_at_once_in_steps_that_mix_prompts_and_decodes(ernie: ModelRunner, budget: int) -> None:
    driver = Driver(ernie, seed=1)
    everything = cases("ernie45-tiny")
    sequences = [driver.sequence(case["prompt"], len(case["greedy"])) for case in everything]
    driver.generate(sequences, max(len(case["greedy"]) for case in everything), budget)
    assert [sequence.output for sequence in sequences] == [case["greedy"] for case in everything]


def test_ernie_first_logits_are_those_of_the_reference(ernie: ModelRunner) -> None:
    for case in cases("ernie45-tiny"):
        driver = Driver(ernie)
        batch = driver.batch([(driver.sequence(case["prompt"], 1), len(case["prompt"]))])
        logits = ernie.logits(batch)  # type: ignore[attr-defined]
        ids, values = zip(*case["first_step_top8"], strict=True)
        np.testing.assert_allclose(logits[0, list(ids)], values, atol=2e-4)


@pytest.fixture(scope="module")
def smollm() -> ModelRunner:
    cache = Path(os.environ.get("PDC_CACHE", HERE.parents[1] / ".cache"))
    path = cache / "models" / SMOLLM
    if not path.exists():
        pytest.fail(f"{path} is missing: make model")
    return paddle_runner(path, max_model_length=512)


@pytest.mark.demo_model
@pytest.mark.parametrize("budget", [1 << 20, 16], ids=lambda budget: f"budget {budget}")
def test_smollm_from_gguf(smollm: ModelRunner, budget: int) -> None:
    driver = Driver(smollm)
    for case in cases("smollm2"):
        sequence = driver.sequence(case["prompt"], len(case["greedy"]))
        driver.generate([sequence], len(case["greedy"]), budget)
        assert sequence.output == case["greedy"]
        driver.release(sequence)
