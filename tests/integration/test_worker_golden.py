"""Greedy tokens of the small ERNIE checkpoint through real workers equal the golden ones, whatever way they take."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from worker_client import Generation, WorkerClient
from worker_processes import ERNIE, WorkerProcess, running_workers

CASES: list[dict[str, list[int]]] = json.loads((ERNIE / "golden.json").read_text())["cases"]
OPTIONS: dict[str, object] = {"threads": 1, "kv_blocks": 600, "block_size": 16, "max_model_length": 1024}

Drive = Callable[[WorkerClient], Coroutine[Any, Any, list[Generation]]]


async def one_by_one(client: WorkerClient) -> list[Generation]:
    return [await run(client, case) for case in CASES]


async def all_at_once(client: WorkerClient) -> list[Generation]:
    return await asyncio.gather(*(run(client, case) for case in CASES))


async def twice(client: WorkerClient) -> list[Generation]:
    """Cold, then warm."""
    await one_by_one(client)
    return await all_at_once(client)


async def run(client: WorkerClient, case: dict[str, list[int]]) -> Generation:
    return await client.generate(case["prompt"], max_tokens=len(case["greedy"]), ignore_eos=True)


def generate(workers: list[WorkerProcess], drive: Drive) -> list[Generation]:
    async def main() -> list[Generation]:
        async with WorkerClient([worker.address for worker in workers]) as client:
            return await drive(client)

    return asyncio.run(main())


def check(workers: list[WorkerProcess], generations: list[Generation]) -> None:
    for case, generation in zip(CASES, generations, strict=True):
        assert generation.failed is None, generation.failed
        assert generation.tokens == case["greedy"]
        assert generation.finished is not None
        assert generation.finished.reason == "length"
    for worker in workers:
        worker.check_nothing_held()


@pytest.mark.parametrize("drive", [one_by_one, all_at_once, twice])
def test_mixed(drive: Drive) -> None:
    with running_workers("mixed", **OPTIONS) as workers:
        check(workers, generate(workers, drive))


@pytest.mark.parametrize(
    ("protocol", "block_size", "drive"),
    [("IPC", 16, one_by_one), ("TCP", 64, all_at_once), ("TCP", 16, twice)],
)
def test_one_prefill_one_decode(protocol: str, block_size: int, drive: Drive) -> None:
    options = {**OPTIONS, "kv_protocol": protocol, "block_size": block_size}
    with running_workers("prefill", "decode", **options) as workers:
        generations = generate(workers, drive)
        check(workers, generations)
        decode = workers[1].instance_id
        for generation in generations:
            assert generation.handed_off is not None
            assert generation.handed_off.decode == decode
            assert set(generation.sources[1:]) == {decode}
        assert workers[0].metric("pdc_kv_transfer_bytes_total") > 0
        assert workers[0].metric("pdc_reserve_attempts_total", outcome="granted") >= len(CASES)
        assert workers[1].metric("pdc_tokens_total", kind="prefill") == 0


def test_two_prefill_two_decode() -> None:
    with running_workers("prefill", "prefill", "decode", "decode", **OPTIONS, kv_protocol="IPC") as workers:

        async def spread(client: WorkerClient) -> list[Generation]:
            entries = [stream for stream in client.streams.values() if stream.address in prefill_addresses]
            return await asyncio.gather(
                *(
                    client.generate(
                        case["prompt"], at=entries[number % 2], max_tokens=len(case["greedy"]), ignore_eos=True
                    )
                    for number, case in enumerate(CASES)
                )
            )

        prefill_addresses = {worker.address for worker in workers[:2]}
        generations = generate(workers, spread)
        check(workers, generations)
        assert len({generation.decode for generation in generations}) == 2, "both decode workers are used"


@pytest.mark.parametrize("roles", [("mixed",), ("prefill", "decode")])
def test_chunked_prefill(roles: tuple[str, ...]) -> None:
    with running_workers(*roles, **OPTIONS, max_batch_tokens=16) as workers:
        check(workers, generate(workers, all_at_once))


@pytest.mark.parametrize("roles", [("mixed",), ("prefill", "decode")])
def test_forced_preemption(roles: tuple[str, ...]) -> None:
    """A pool that holds one longest request, and little more, for all of them at once."""
    longest = max(len(case["prompt"]) + len(case["greedy"]) for case in CASES)
    length = -(-longest // 16) * 16
    options = {**OPTIONS, "max_model_length": length, "kv_blocks": length // 16 + 2}
    with running_workers(*roles, **options) as workers:
        check(workers, generate(workers, all_at_once))
        prompts = sum(len(case["prompt"]) for case in CASES) if roles == ("mixed",) else 0
        assert workers[-1].metric("pdc_tokens_total", kind="prefill") > prompts, "something was computed again"
