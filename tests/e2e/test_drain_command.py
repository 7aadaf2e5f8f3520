"""`pdc drain` of a real worker under load: no stream is lost, the worker is empty and stays so, and serves again."""

import os
import signal
from pathlib import Path

import pytest
from cluster_cli import Pdc
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_identity import chart_identity
from cluster_operator import operator_process
from kubelet_agent import Agent
from serving_load import manifest, router_address, under_load

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

DECODE = "demo-decode-1"
SMALL = {"limits": {"cpu": 1, "memory": "2Gi"}}


async def answer_to(admin: Client, restarts: str) -> None:
    """Until the operator has noted that the worker is empty, after so many restarts of its container."""
    note = "pdcluster.dev/drained"
    await admin.wait(
        "v1/Pod", DECODE, lambda found: (found or {})["metadata"]["annotations"].get(note) == restarts, seconds=90
    )


async def test_a_worker_leaves_under_load_and_comes_back(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    roles = {role: {"replicas": 2, "gpu": {"count": 0}, "resources": SMALL} for role in ("prefill", "decode")}
    pdc = Pdc(control_plane.kubeconfig, admin.namespace)
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace):
        await admin.create(manifest(**{**roles, "drain": {"timeoutSeconds": 120}}))
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=240)
        async with under_load(await router_address(admin)) as right:
            drained = await pdc("drain", DECODE)
            assert (drained.status, "is drained" in drained.out) == (0, True), drained
            told = (await pdc("status", "demo", "-o", "json")).json()
            assert {pod["name"]: pod["drain"] for pod in told["pods"]}[DECODE] == "drained"

            process = agent.pods[admin.namespace, DECODE].process_id("main")
            assert process is not None
            os.kill(process, signal.SIGKILL)
            await answer_to(admin, "1")
            before = right[0]

            resumed = await pdc("resume", DECODE)
            assert resumed.status == 0, resumed.err
        assert right[0] >= before > 0
