"""Greedy tokens equal the golden ones through the whole path: HTTP, router, workers as processes, KV transfer.

Each group of tests shares one deployment. Every case of the golden file runs in each, and each ends with proof that
nothing is held.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from load_deployment import Deployment, WorkerSpec

GOLDEN = Path(__file__).parents[1] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "ernie45-tiny/golden.json").read_text())["cases"]
LARGEST_BLOCK = 64
IPC = {"kv_protocol": "IPC"}
TCP = {"kv_protocol": "TCP"}
TIGHT = {"kv_blocks": 17, "max_model_length": 256, "block_size": 16}
"""One request of the longest length and one block more: 12 requests at once cannot all run."""
MOST_ATTEMPTS = 10

DEPLOYMENTS: dict[str, list[WorkerSpec]] = {
    "mixed": [WorkerSpec("mixed")],
    "mixed, blocks of 16, chunks of 16": [WorkerSpec("mixed", {"block_size": 16, "max_batch_tokens": 16})],
    "mixed, preempting": [WorkerSpec("mixed", TIGHT)],
    "1P1D over shared memory": [WorkerSpec("prefill", IPC), WorkerSpec("decode", IPC)],
    "1P1D over TCP, blocks of 16, chunks of 16": [
        WorkerSpec("prefill", TCP | {"block_size": 16, "max_batch_tokens": 16}),
        WorkerSpec("decode", TCP | {"block_size": 16}),
    ],
    "1P1D, the decode worker preempting": [
        WorkerSpec("prefill", IPC | {"block_size": 16, "max_model_length": 256}),
        WorkerSpec("decode", IPC | TIGHT),
    ],
    "2P2D": [
        WorkerSpec("prefill", IPC),
        WorkerSpec("prefill", IPC),
        WorkerSpec("decode", IPC),
        WorkerSpec("decode", IPC),
    ],
}


@pytest.fixture(scope="module", params=list(DEPLOYMENTS))
def cluster(request: pytest.FixtureRequest) -> Iterator[Deployment]:
    with Deployment(DEPLOYMENTS[request.param]) as cluster:
        yield cluster
        cluster.check_nothing_held()


def bodies(cases: list[dict[str, Any]], **more: object) -> list[dict[str, object]]:
    return [{"prompt": case["prompt"], "max_tokens": len(case["greedy"]), "ignore_eos": True} | more for case in cases]


def test_each_case_alone_with_a_cold_and_a_warm_prefix_cache(cluster: Deployment) -> None:
    for number, case in enumerate(CASES):
        cold, warm = (cluster.complete(bodies([case], cache_salt=f"alone {number}"))[0] for _ in range(2))
        assert cold.tokens == case["greedy"], f"case {number}: {cold}"
        assert warm.tokens == case["greedy"], f"case {number}, warm: {warm}"
        assert cold.cached_tokens == 0
        assert warm.cached_tokens > 0 or len(case["prompt"]) <= LARGEST_BLOCK


def test_all_cases_at_once(cluster: Deployment, request: pytest.FixtureRequest) -> None:
    is_short_of_blocks = "preempting" in request.node.callspec.id
    # On a busy machine requests come one after the other, and may all find room: then once more.
    for attempt in range(MOST_ATTEMPTS if is_short_of_blocks else 1):
        answers = cluster.complete(bodies(CASES, cache_salt=f"at once {attempt}"))
        for number, (case, answer) in enumerate(zip(CASES, answers, strict=True)):
            assert answer.tokens == case["greedy"], f"case {number}: {answer}"
            assert answer.finish_reason == "length"
        cluster.check_nothing_held()
        if preemptions(cluster):
            break
    assert (preemptions(cluster) > 0) == is_short_of_blocks


def preemptions(cluster: Deployment) -> float:
    return sum(worker.metric("pdc_preemptions_total") for worker in cluster.workers)


def test_one_prompt_many_times_at_once_with_a_cold_prefix_cache(cluster: Deployment) -> None:
    """One step computes it for the first request, and others share the blocks in that step already."""
    longest = max(CASES, key=lambda case: len(case["prompt"]))
    for number in range(4):
        answers = cluster.complete(bodies([longest] * 6, cache_salt=f"together {number}"))
        assert [answer.tokens for answer in answers] == [longest["greedy"]] * 6
