"""Load makes a Managed role grow, and its end makes it shrink: real workers, real gauges, and no stream notices."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from adapter_process import serving
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, has_condition, replicas
from cluster_identity import chart_identity
from cluster_operator import operator_process
from kubelet_agent import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(500)]

GOLDEN = Path(__file__).parents[1] / "golden" / "ernie45-tiny"
CASES = json.loads((GOLDEN / "golden.json").read_text())["cases"]
MANAGED = {
    "mode": "Managed",
    "minReplicas": 1,
    "maxReplicas": 2,
    "targets": {"runningPerReplica": 1},
    "behavior": {"scaleUpStabilizationSeconds": 0, "scaleDownStabilizationSeconds": 10, "scaleDownPeriodSeconds": 1},
}
CLUSTER_MANIFEST: Manifest = {
    "apiVersion": "pdcluster.dev/v1alpha1",
    "kind": "PDCluster",
    "metadata": {"name": "demo"},
    "spec": {
        "model": {"name": "ernie-tiny", "source": {"hostPath": {"path": str(GOLDEN)}}},
        "prefill": {"replicas": 1, "gpu": {"count": 0}},
        "decode": {"gpu": {"count": 0}, "scaling": MANAGED},
        "transport": {"kv": {"protocol": "TCP"}},
        "drain": {"timeoutSeconds": 30},
    },
}


async def stream(http: httpx.AsyncClient, address: str, case: dict[str, Any]) -> list[int]:
    """The tokens of a greedy completion, one event after another; it must end as every stream does."""
    body = {
        "model": "ernie-tiny",
        "prompt": case["prompt"],
        "max_tokens": len(case["greedy"]),
        "temperature": 0,
        "stream": True,
        "return_token_ids": True,
    }
    tokens: list[int] = []
    ended = False
    async with http.stream("POST", f"http://{address}:8080/v1/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line == "data: [DONE]":
                ended = True
            elif line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                tokens += [token for choice in event["choices"] for token in choice.get("token_ids") or []]
    assert ended, "a stream broke off"
    return tokens


@contextlib.asynccontextmanager
async def load(address: str, streams: int) -> AsyncIterator[list[int]]:
    """So many streams at any time; yields how many were right, and fails on any that was not."""
    right = [0]
    stop = asyncio.Event()

    async def repeat(http: httpx.AsyncClient, offset: int) -> None:
        for number in itertools.count(offset):
            if stop.is_set():
                return
            case = CASES[number % len(CASES)]
            assert await stream(http, address, case) == case["greedy"]
            right[0] += 1

    async with httpx.AsyncClient(trust_env=False, timeout=100) as http, asyncio.TaskGroup() as group:
        for offset in range(streams):
            group.create_task(repeat(http, offset))
        yield right
        stop.set()


async def test_load_scales_a_managed_role_up_and_its_end_down_and_no_stream_is_lost(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace):
        async with serving(admin, control_plane, tmp_path):
            await admin.create(CLUSTER_MANIFEST)
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=200)
            await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "True"), seconds=60)
            address = await router_address(admin)

            async with load(address, streams=1) as always:
                async with load(address, streams=8) as much:
                    await admin.wait(STATEFUL_SET, "demo-decode", replicas(2), seconds=120)
                    await admin.wait(SCALER, "demo-decode", has_ready(2), seconds=150)
                assert much[0] > 0
                before = always[0]
                await admin.wait(STATEFUL_SET, "demo-decode", replicas(1), seconds=150)
                await admin.wait("v1/Pod", "demo-decode-1", lambda found: found is None, seconds=60)
            assert always[0] > before > 0


async def router_address(admin: Client) -> str:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role=router")
    return str(pods[0]["status"]["podIP"])


def has_ready(number: int):
    return lambda found: (found or {}).get("status", {}).get("readyReplicas") == number
