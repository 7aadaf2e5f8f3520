"""300 requests through a minute of deaths, pauses and broken links: no client hears of it, and nothing is left over.

Two prefill and two decode workers behind proxies, with the simulated runner, which compares the KV that each step
reads with what its tokens say: a byte that landed where it should not ends its executor with a message that this test
looks for. Requests come at a steady rate all the while.
"""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from link_proxy import ThreadedLinkProxy
from load_deployment import Deployment, WorkerSpec
from load_disturbed import Streams, check_same, run_streams, sampled_bodies
from load_faults import FaultStorm

REQUESTS = 300
TOKENS = 40
STORM_SECONDS = 60.0
SEED = 300
ROLES = ("prefill", "prefill", "decode", "decode")
PROFILE = {
    "prefill_tokens_per_second": 20_000,
    "decode": {"base": 0.02},
    "verification": "full",
}

pytestmark = [pytest.mark.storm, pytest.mark.timeout(400)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def stormy(tmp_path: Path) -> Iterator[tuple[Deployment, list[ThreadedLinkProxy]]]:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(PROFILE))
    with ExitStack() as stack:
        ports = [free_port() for _ in ROLES]
        proxies = [stack.enter_context(ThreadedLinkProxy(port)) for port in ports]
        common = {"runner": "Simulated", "profile": profile, "kv_protocol": "TCP", "block_size": 16}
        specs = [
            WorkerSpec(role, common | {"grpc_port": port, "advertise": proxy.address})
            for role, port, proxy in zip(ROLES, ports, proxies, strict=True)
        ]
        yield stack.enter_context(Deployment(specs)), proxies


def test_storm(stormy: tuple[Deployment, list[ThreadedLinkProxy]]) -> None:
    cluster, proxies = stormy
    bodies = sampled_bodies(REQUESTS, prompt=150, tokens=TOKENS)
    undisturbed = run_streams(cluster, bodies)
    storm = FaultStorm(cluster, proxies, SEED)

    async def disturb(streams: Streams) -> None:
        blowing = asyncio.ensure_future(storm.run(STORM_SECONDS))
        for body in bodies:
            await streams.open([body])
            await asyncio.sleep(STORM_SECONDS / REQUESTS)
        await blowing

    results = run_streams(cluster, [], disturb)
    print(dict(storm.counts))
    check_same(results, undisturbed)
    cluster.check_nothing_held()
    assert min(storm.counts[fault] for fault in ("kill", "stop_engine", "stop_executor", "cut_links")) > 0
    for worker in [*cluster.ended, *cluster.workers]:
        assert "is not that of token" not in "".join(map(str, [*worker.lines, *worker.noise]))
