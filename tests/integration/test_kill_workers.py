"""A killed worker costs a pause and nothing else: with temperature 1 and a seed, clients see the tokens of a quiet run.

Two prefill workers and one decode worker, so that the death of the decode worker, or of both prefill workers, leaves
nobody of that role until the restart. The streams stay open all the while.
"""

import asyncio
from collections.abc import Iterator

import pytest
from load_deployment import Deployment, WorkerSpec
from load_disturbed import Streams, check_same, kill_and_restart, run_streams, sampled_bodies
from load_http import StreamResult

OPTIONS = {"kv_protocol": "TCP", "max_batch_tokens": 64}
PREFILLS, DECODE = (0, 1), 2
SHORT = sampled_bodies(3, prompt=24, tokens=400)
LONG = sampled_bodies(3, prompt=1500, tokens=60)
"""Two dozen steps of prefill each."""

Undisturbed = dict[str, list[StreamResult]]
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Deployment]:
    roles = ("prefill", "prefill", "decode")
    with Deployment([WorkerSpec(role, OPTIONS) for role in roles]) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def undisturbed(cluster: Deployment) -> Undisturbed:
    return {"short": run_streams(cluster, SHORT), "long": run_streams(cluster, LONG)}


@pytest.fixture(autouse=True)
def nothing_held_at_the_end(cluster: Deployment) -> Iterator[None]:
    yield
    cluster.check_nothing_held()


def test_decode_worker_in_mid_stream(cluster: Deployment, undisturbed: Undisturbed) -> None:
    async def disturb(streams: Streams) -> None:
        await streams.reached(30)
        await kill_and_restart(cluster, [DECODE])

    check_same(run_streams(cluster, SHORT, disturb), undisturbed["short"])


def test_decode_worker_twice(cluster: Deployment, undisturbed: Undisturbed) -> None:
    async def disturb(streams: Streams) -> None:
        await streams.reached(30)
        await kill_and_restart(cluster, [DECODE])
        await streams.reached(120)
        await kill_and_restart(cluster, [DECODE])

    check_same(run_streams(cluster, SHORT, disturb), undisturbed["short"])


@pytest.mark.parametrize("tokens", [0, 1, 20], ids=["before hand-off", "at hand-off", "after hand-off"])
def test_prefill_worker(cluster: Deployment, undisturbed: Undisturbed, tokens: int) -> None:
    async def disturb(streams: Streams) -> None:
        await streams.reached(tokens)
        await kill_and_restart(cluster, [PREFILLS[0]])

    check_same(run_streams(cluster, LONG, disturb), undisturbed["long"])


@pytest.mark.parametrize("tokens", [0, 1], ids=["before hand-off", "at hand-off"])
def test_both_prefill_workers_at_once(cluster: Deployment, undisturbed: Undisturbed, tokens: int) -> None:
    async def disturb(streams: Streams) -> None:
        await streams.reached(tokens)
        await kill_and_restart(cluster, PREFILLS)

    check_same(run_streams(cluster, LONG, disturb), undisturbed["long"])


def test_everything_at_once(cluster: Deployment, undisturbed: Undisturbed) -> None:
    async def disturb(streams: Streams) -> None:
        await streams.reached(50)
        await kill_and_restart(cluster, [*PREFILLS, DECODE])

    check_same(run_streams(cluster, SHORT, disturb), undisturbed["short"])


def test_requests_that_come_while_nobody_is_there(cluster: Deployment, undisturbed: Undisturbed) -> None:
    async def disturb(streams: Streams) -> None:
        restarting = asyncio.ensure_future(kill_and_restart(cluster, [*PREFILLS, DECODE]))
        await streams.open(SHORT)
        await restarting

    check_same(run_streams(cluster, [], disturb), undisturbed["short"])
