"""A PDCluster whose operator, router and workers are the real ones, over mutual TLS, with a small real model."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_identity import chart_identity
from cluster_operator import operator_process
from kubelet_agent import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

GOLDEN = Path(__file__).parents[1] / "golden" / "ernie45-tiny"
CASES = json.loads((GOLDEN / "golden.json").read_text())["cases"]
SMALL = {"limits": {"cpu": 1, "memory": "2Gi"}}


def manifest(**spec: Any) -> Manifest:
    return {
        "apiVersion": "pdcluster.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": "demo"},
        "spec": {
            "model": {"name": "ernie-tiny", "source": {"hostPath": {"path": str(GOLDEN)}}},
            "prefill": {"replicas": 1, "gpu": {"count": 0}},
            "decode": {"replicas": 1, "gpu": {"count": 0}},
            "transport": {"kv": {"protocol": "TCP"}},
            "drain": {"timeoutSeconds": 20},
            **spec,
        },
    }


async def complete(address: str, case: dict[str, Any]) -> list[int]:
    """The tokens of a greedy completion, asked of the router at `address`."""
    body = {
        "model": "ernie-tiny",
        "prompt": case["prompt"],
        "max_tokens": len(case["greedy"]),
        "temperature": 0,
        "return_token_ids": True,
    }
    async with httpx.AsyncClient(trust_env=False, timeout=100) as http:
        answer = await http.post(f"http://{address}:8080/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"][0]["token_ids"])


async def router_address(admin: Client) -> str:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role=router")
    return str(pods[0]["status"]["podIP"])


async def test_an_applied_cluster_answers_with_the_right_tokens_and_drains_when_it_shrinks(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace):
        await admin.create(manifest())
        try:
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=200)
        except TimeoutError:
            show_logs(tmp_path)
            raise
        address = await router_address(admin)
        for case in CASES[:3]:
            assert await complete(address, case) == case["greedy"]

        await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 0}, "decode": {"replicas": 0}}})
        for name in ("demo-prefill-0", "demo-decode-0"):
            await admin.wait("v1/Pod", name, lambda found: found is None, seconds=60)


def show_logs(folder: Path) -> None:
    for log in sorted(folder.glob("*/main.log")):
        print(log, log.read_text(errors="replace")[-3000:])


@contextlib.asynccontextmanager
async def under_load(address: str, streams: int = 3) -> AsyncIterator[list[int]]:
    """Completions one after another in several streams; yields how many were right, and fails on any that was not."""
    right = [0]
    stop = asyncio.Event()

    async def stream(offset: int) -> None:
        for number in itertools.count(offset):
            if stop.is_set():
                return
            case = CASES[number % len(CASES)]
            assert await complete(address, case) == case["greedy"]
            right[0] += 1

    async with asyncio.TaskGroup() as group:
        for offset in range(streams):
            group.create_task(stream(offset))
        yield right
        stop.set()


async def test_no_request_is_lost_by_a_rollout_a_kill_or_an_eviction(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    roles = {role: {"replicas": 2, "gpu": {"count": 0}, "resources": SMALL} for role in ("prefill", "decode")}
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace):
        await admin.create(manifest(**roles))
        await ready(admin, 1)
        async with under_load(await router_address(admin)) as right:
            changed = await admin.merge(CLUSTER, "demo", {"spec": {"engine": {"prepareThreads": 6}}})
            await ready(admin, changed["metadata"]["generation"])
            assert len(await revisions(admin)) == 1
            before = right[0]

            process = agent.pods[admin.namespace, "demo-decode-1"].process_id("main")
            assert process is not None
            os.kill(process, signal.SIGKILL)
            await admin.wait("v1/Pod", "demo-decode-1", has_restarted, seconds=60)

            await evict(admin, "demo-prefill-1")
            await ready(admin, changed["metadata"]["generation"])
        assert right[0] > before > 0


async def evict(admin: Client, name: str) -> None:
    """As `kubectl drain` does, and until the pod is another."""
    uid = (await admin.get("v1/Pod", name))["metadata"]["uid"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await admin.call("POST", admin.path("v1/Pod", name, "eviction"), {}, body)
    await admin.wait("v1/Pod", name, lambda found: found is not None and found["metadata"]["uid"] != uid, seconds=60)


async def ready(admin: Client, generation: int) -> None:
    def holds(found: Manifest | None) -> bool:
        status = (found or {}).get("status", {})
        return status.get("observedGeneration", 0) >= generation and has_condition("Ready", "True")(found)

    await admin.wait(CLUSTER, "demo", holds, seconds=240)


async def revisions(admin: Client) -> set[str]:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role in (prefill,decode)")
    return {pod["metadata"]["labels"]["pdcluster.dev/revision"] for pod in pods}


def has_restarted(found: Manifest | None) -> bool:
    entry = (found or {}).get("status", {}).get("containerStatuses", [{}])[0]
    return entry.get("restartCount", 0) > 0 and bool(entry.get("ready"))
