"""What one worker's death leaves at the other: leases in quarantine until proof, requests leased again elsewhere."""

import asyncio
import json
from pathlib import Path

import pytest
from worker_client import WorkerClient
from worker_processes import WorkerProcess, running_workers, start_worker

from pdcluster_worker.core.wire import FailureCode

SLOW_PREFILL = {"prefill": {"per_token": 0.002}, "decode": {"base": 0.005}}
OPTIONS: dict[str, object] = {
    "runner": "Simulated",
    "block_size": 16,
    "kv_blocks": 512,
    "threads": 1,
    "max_batch_tokens": 64,
}


@pytest.fixture
def slow(tmp_path: Path) -> dict[str, object]:
    """Options of workers whose prompts take a while: 1,000 tokens 2 s."""
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(SLOW_PREFILL))
    return {**OPTIONS, "profile": profile}


def test_a_killed_prefill_worker_leaves_a_quarantine_that_its_restart_ends(slow: dict[str, object]) -> None:
    async def lease(prefill: WorkerProcess, decode: WorkerProcess) -> None:
        async with WorkerClient([prefill.address, decode.address]) as client:
            generation = await client.start([n % 512 for n in range(1000)], max_tokens=4)
            await asyncio.to_thread(decode.wait_metric, "pdc_leases", lambda value: value == 1, state="live")
            await asyncio.to_thread(prefill.kill)
            assert not generation.done.is_set()

    with running_workers("prefill", "decode", **slow) as (prefill, decode):
        asyncio.run(lease(prefill, decode))
        decode.wait_metric("pdc_links_lost_total", lambda value: value == 1, peer_kind="prefill")
        # Nobody can take its writes back: its lease ends after its time to live, its blocks are not used again.
        decode.wait_metric("pdc_blocks", lambda value: value > 0, 20, holder="quarantined")
        decode.wait_metric("pdc_leases", lambda value: value == 0, 20, state="live")
        with start_worker("prefill", name="prefill-0", **slow) as restarted:  # type: ignore[arg-type]
            asyncio.run(generate(restarted, decode))
            decode.check_nothing_held()
            restarted.check_nothing_held()


async def generate(*workers: WorkerProcess) -> None:
    async with WorkerClient([worker.address for worker in workers]) as client:
        generation = await client.generate(list(range(40)), max_tokens=4)
        assert generation.failed is None
        assert len(generation.tokens) == 4


def test_a_killed_decode_worker_costs_a_lease_not_the_request(slow: dict[str, object]) -> None:
    """The prefill worker leases elsewhere, from the KV that it holds."""

    async def main(prefill: WorkerProcess, decodes: dict[str, WorkerProcess]) -> None:
        addresses = [prefill.address, *(decode.address for decode in decodes.values())]
        async with WorkerClient(addresses) as client:
            generation = await client.start(list(range(500)), max_tokens=4)
            async with asyncio.timeout(20):
                while not generation.decode:
                    await asyncio.sleep(0.01)
            doomed = decodes[generation.decode]
            await asyncio.to_thread(doomed.kill)
            await asyncio.wait_for(generation.done.wait(), 30)
            assert generation.finished is not None
            assert len(generation.tokens) == 4
            assert generation.decode != doomed.instance_id

    with running_workers("prefill", "decode", "decode", **slow) as (prefill, *decodes):
        by_instance = {decode.instance_id: decode for decode in decodes}
        asyncio.run(main(prefill, by_instance))
        prefill.check_nothing_held()
        for decode in decodes:
            if decode.child.poll() is None:
                decode.check_nothing_held()


def test_without_a_decode_worker_a_request_waits_for_its_deadline(slow: dict[str, object]) -> None:
    async def main(prefill: WorkerProcess) -> None:
        async with WorkerClient([prefill.address]) as client:
            generation = await client.generate(list(range(20)), timeout=1.0)
            assert generation.failed is not None
            assert generation.failed.code is FailureCode.DEADLINE

    with running_workers("prefill", **slow) as (prefill,):
        asyncio.run(main(prefill))
        prefill.check_nothing_held()


def test_aborts_at_every_stage_give_everything_back(slow: dict[str, object]) -> None:
    async def main(prefill: WorkerProcess, decode: WorkerProcess) -> None:
        async with WorkerClient([prefill.address, decode.address]) as client:
            generations = [await client.start(list(range(n, n + 200)), max_tokens=2000) for n in range(12)]
            for number, generation in enumerate(generations):
                if number % 3 == 1:
                    await asyncio.sleep(0.05 * number)
                if number % 3 == 2:
                    async with asyncio.timeout(20):
                        while len(generation.tokens) < number:
                            generation.news.clear()
                            await generation.news.wait()
                await client.abort(generation)

    with running_workers("prefill", "decode", **slow) as (prefill, decode):
        asyncio.run(main(prefill, decode))
        prefill.check_nothing_held()
        decode.check_nothing_held()


def test_a_router_that_leaves_takes_its_requests_along(slow: dict[str, object]) -> None:
    """Nobody attaches within 5 s: all is given back."""

    async def main(prefill: WorkerProcess, decode: WorkerProcess) -> None:
        async with WorkerClient([prefill.address, decode.address]) as client:
            generations = [await client.start(list(range(n, n + 100)), max_tokens=3000) for n in range(3)]
            await asyncio.wait_for(generations[0].news.wait(), 20)

    with running_workers("prefill", "decode", **slow) as (prefill, decode):
        asyncio.run(main(prefill, decode))
        prefill.check_nothing_held(25)
        decode.check_nothing_held(25)
