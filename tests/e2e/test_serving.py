"""A PDCluster whose operator, router and workers are the real ones, over mutual TLS, with a small real model."""

import os
import signal
from pathlib import Path

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_identity import chart_identity
from cluster_operator import operator_process
from kubelet_agent import Agent
from serving_load import CASES, complete, has_restarted, manifest, router_address, show_logs, under_load

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

SMALL = {"limits": {"cpu": 1, "memory": "2Gi"}}


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


async def test_no_request_is_lost_by_a_rollout_a_kill_or_an_eviction(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    roles = {role: {"replicas": 2, "gpu": {"count": 0}, "resources": SMALL} for role in ("prefill", "decode")}
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace):
        await admin.create(manifest(**roles))
        await ready(admin, 1)
        async with under_load(await router_address(admin), ask=complete) as right:
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
