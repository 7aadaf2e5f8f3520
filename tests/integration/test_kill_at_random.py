"""Dozens of sampled streams over two prefill and two decode workers that are killed again and again, at random.

Every worker comes back at its ports, as `pdc run` and Kubernetes have it. No client sees an error, every token is that
of a quiet run, and at the end nothing is held anywhere.
"""

import asyncio
import random
from collections.abc import Iterator

import pytest
from load_deployment import Deployment, WorkerSpec, router_metric
from load_disturbed import Streams, check_same, kill_and_start, run_streams, sampled_bodies

STREAMS = 36
TOKENS = 700
KILLS = 8
SEED = 20
SECONDS_BETWEEN = 2.0

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Deployment]:
    roles = ("prefill", "prefill", "decode", "decode")
    with Deployment([WorkerSpec(role, {"kv_protocol": "TCP"}) for role in roles]) as cluster:
        yield cluster


def test_random_kills(cluster: Deployment) -> None:
    bodies = sampled_bodies(STREAMS, prompt=100, tokens=TOKENS)
    undisturbed = run_streams(cluster, bodies)
    generator = random.Random(SEED)
    open_at_kills: list[int] = []

    async def disturb(streams: Streams) -> None:
        await streams.reached(1)
        for _ in range(KILLS):
            open_at_kills.append(sum(not client.done.done() for client in streams.clients))
            victims = generator.sample(range(len(cluster.workers)), generator.choice((1, 1, 2)))
            await kill_and_start(cluster, victims)
            await asyncio.sleep(generator.uniform(0.2, SECONDS_BETWEEN))
        await asyncio.to_thread(cluster.wait_workers)

    before = router_metric(cluster, "pdc_resubmissions_total")
    check_same(run_streams(cluster, bodies, disturb), undisturbed)
    assert sum(count > 0 for count in open_at_kills) >= 4, f"streams open at each kill: {open_at_kills}"
    assert router_metric(cluster, "pdc_resubmissions_total") >= before + STREAMS
    cluster.check_nothing_held()
