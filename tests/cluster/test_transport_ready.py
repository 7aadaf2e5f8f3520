"""TransportReady on a real API server: what workers say of their peers, asked at the addresses of KWOK's pods."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, cluster, has_condition
from cluster_identity import chart_identity
from cluster_operator import operator_process

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]

PORT = 8000


@contextlib.asynccontextmanager
async def telling(addresses: dict[str, str], peers: dict[str, int]) -> AsyncIterator[dict[str, int]]:
    """Metrics servers at the pods' addresses, each with its number of peers; yields how often each was asked."""
    asked = dict.fromkeys(addresses, 0)

    def answer(name: str) -> Any:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked[name] += 1
            body = f"# TYPE pdc_kv_peers gauge\npdc_kv_peers {float(peers[name])}\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
            writer.close()

        return handle

    async with contextlib.AsyncExitStack() as stack:
        for name, address in addresses.items():
            await stack.enter_async_context(await asyncio.start_server(answer(name), address, PORT))
        yield asked


async def workers(admin: Client) -> dict[str, str]:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role in (prefill,decode)")
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}


async def test_workers_without_peers_are_named_until_they_have_some(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, PDC_PEERS_SECONDS="2"
    ):
        await admin.create(cluster(transport={"kv": {"protocol": "TCP"}}))
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "Unknown", "NotTold"))
        addresses = await workers(admin)
        peers = dict.fromkeys(addresses, 2)
        async with telling(addresses, peers):
            await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "True", "TCP"))
            peers["demo-decode-1"] = 0
            found = await admin.wait(
                CLUSTER, "demo", has_condition("TransportReady", "False", "NoReachablePeer"), seconds=60
            )
            assert told(found) == "no peer of the other role can be reached from demo-decode-1"
            assert has_condition("Ready", "True")(found)
            peers["demo-decode-1"] = 1
            await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "True", "TCP"))


def told(found: Manifest | None) -> str:
    assert found is not None
    entries = found["status"]["conditions"]
    return str(next(entry["message"] for entry in entries if entry["type"] == "TransportReady"))


async def test_asking_writes_nothing_and_reads_nothing_of_the_api_server(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, PDC_PEERS_SECONDS="0.5"
    ):
        await admin.create(cluster(transport={"kv": {"protocol": "TCP"}}))
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        addresses = await workers(admin)
        async with telling(addresses, dict.fromkeys(addresses, 2)) as asked:
            found = await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "True"))
            assert found is not None
            before = min(asked.values())
            async with asyncio.timeout(30):
                while min(asked.values()) < before + 5:
                    await asyncio.sleep(0.2)
            after = await admin.get(CLUSTER, "demo")
    assert after["metadata"]["resourceVersion"] == found["metadata"]["resourceVersion"]
