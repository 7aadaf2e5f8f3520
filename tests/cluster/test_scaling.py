"""Scaling on a real API server: scalers, the ratio, a real autoscaler through an adapter, drains."""

from typing import Any

import pytest
from cluster_adapter import serving
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_operator import OperatorProcess

pytestmark = pytest.mark.anyio

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 6}


def scaled(**edit: Any) -> Manifest:
    """A cluster whose decode role is scaled by somebody else."""
    return cluster(decode__replicas=None, decode__scaling=EXTERNAL, **edit)


def limited(role: str, limit: str):
    def holds(found: Manifest | None) -> bool:
        roles = (found or {}).get("status", {}).get("roles", [])
        return any(entry["name"] == role and entry["limitedBy"] == limit for entry in roles)

    return holds


async def scale(admin: Client, name: str, number: int) -> None:
    """As `kubectl scale` and every autoscaler do."""
    await admin.merge(SCALER, name, {"spec": {"replicas": number}}, "scale")


async def test_a_scaler_moves_its_role_both_ways(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(scaled())
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)
    await scale(admin, "demo-decode", 3)
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(3))
    await admin.wait(SCALER, "demo-decode", lambda found: (found or {}).get("status", {}).get("readyReplicas") == 3)
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)

    part = await admin.get(SCALER, "demo-decode", "scale")
    assert part["status"]["replicas"] == 3
    counted = await admin.list("v1/Pod", part["status"]["selector"])
    assert len(counted) == 3, "the number and the selector count the same pods"

    await scale(admin, "demo-decode", 1)
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(1))
    await admin.wait("v1/Pod", "demo-decode-1", lambda found: found is None)
    assert await admin.find("v1/Pod", "demo-decode-0")


async def test_static_turned_into_external_keeps_its_number(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster(decode__replicas=3))
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)

    await admin.merge(CLUSTER, "demo", {"spec": {"decode": {"replicas": None, "scaling": EXTERNAL}}})
    await admin.wait(SCALER, "demo-decode", replicas(3))
    await admin.merge(CLUSTER, "demo", {"spec": {"decode": {"replicas": 2, "scaling": {"mode": "Static"}}}})

    await admin.wait(SCALER, "demo-decode", lambda found: found is None)
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(2))


async def test_the_ratio_and_the_maximum_limit_and_say_so(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(scaled(scalingPolicy={"ratio": {"min": "0.5"}}))
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)

    await scale(admin, "demo-decode", 6)
    await admin.wait(CLUSTER, "demo", limited("decode", "Ratio"))
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(4))

    await admin.merge(CLUSTER, "demo", {"spec": {"scalingPolicy": None}})
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(6))
    await scale(admin, "demo-decode", 9)
    await admin.wait(CLUSTER, "demo", limited("decode", "Max"))


async def test_a_gpu_budget_is_kept(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(
        scaled(prefill__gpu={"count": 1}, decode__gpu={"count": 1}, scalingPolicy={"maxGPUs": 4, "ratio": {}})
    )
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)
    await scale(admin, "demo-decode", 5)
    await admin.wait(CLUSTER, "demo", limited("decode", "GPUBudget"))
    await admin.wait(CLUSTER, "demo", lambda found: (found or {})["status"]["gpus"]["existing"] == 4)
    assert (await admin.get(STATEFUL_SET, "demo-decode"))["spec"]["replicas"] == 2


async def test_a_drain_goes_on_after_a_restart_and_can_be_taken_back(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(scaled(drain__timeoutSeconds=300))
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)
    await scale(admin, "demo-decode", 2)
    await admin.wait(SCALER, "demo-decode", lambda found: (found or {}).get("status", {}).get("readyReplicas") == 2)
    await scale(admin, "demo-decode", 1)

    draining = await admin.wait("v1/Pod", "demo-decode-1", is_draining)
    assert draining is not None
    deadline = draining["metadata"]["annotations"]["pdcluster.dev/drain-deadline"]
    operator.restart()
    await admin.wait(CLUSTER, "demo", limited("decode", "Draining"))
    still = await admin.get("v1/Pod", "demo-decode-1")
    assert still["metadata"]["annotations"]["pdcluster.dev/drain-deadline"] == deadline
    assert "pdcluster.dev/counted" not in still["metadata"]["labels"]

    await scale(admin, "demo-decode", 2)
    resumed = await admin.wait("v1/Pod", "demo-decode-1", lambda found: not is_draining(found))
    assert resumed is not None
    assert resumed["metadata"]["uid"] == draining["metadata"]["uid"]
    assert resumed["metadata"]["labels"]["pdcluster.dev/counted"] == "true"


def is_draining(found: Manifest | None) -> bool:
    return "pdcluster.dev/drain-uid" in (found or {}).get("metadata", {}).get("annotations", {})


async def test_a_managed_role_follows_its_metric_both_ways(
    admin: Client, node: str, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    front_proxy = (control_plane.folder / "front-proxy-ca.crt").read_bytes()
    async with serving(admin, front_proxy) as adapter:
        adapter.values["pdc_kv_cache_usage_ratio"] = "2300m"
        managed = {"mode": "Managed", "minReplicas": 1, "maxReplicas": 6, "targets": {"kvUsage": "0.8"}}
        await admin.create(cluster(decode__replicas=None, decode__scaling=managed))
        await admin.wait(STATEFUL_SET, "demo-decode", replicas(3), seconds=90)
        await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "True"))


async def test_without_metrics_scaling_is_not_active_and_nothing_moves(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    managed = {"mode": "Managed", "minReplicas": 1, "maxReplicas": 6}
    await admin.create(cluster(decode__replicas=None, decode__scaling=managed))
    await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "False", "NoMetric"), seconds=60)
    assert (await admin.get(STATEFUL_SET, "demo-decode"))["spec"]["replicas"] == 1
