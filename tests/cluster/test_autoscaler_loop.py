"""The real horizontal autoscaler, the product's adapter and the operator, from workers' gauges to numbers of pods."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from adapter_process import ProductAdapter
from adapter_process import serving as adapter_serving
from cluster_adapter import serving
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_operator import OperatorProcess
from fake_metrics import FakeMetrics, fake_metrics

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

USAGE = "pdc_kv_cache_usage_ratio"
HPA = "autoscaling/v2/HorizontalPodAutoscaler"
QUICK = {"scaleUpStabilizationSeconds": 0, "scaleDownStabilizationSeconds": 0, "scaleDownPeriodSeconds": 1}
MANAGED = {"mode": "Managed", "minReplicas": 1, "maxReplicas": 6, "targets": {"kvUsage": "0.8"}, "behavior": QUICK}
WORKERS = "pdcluster.dev/role in (prefill,decode)"


def autoscaler(kind: str, api_version: str, name: str, metric: Manifest, target: str) -> Manifest:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "own"},
        "spec": {
            "scaleTargetRef": {"apiVersion": api_version, "kind": kind, "name": name},
            "minReplicas": 1,
            "maxReplicas": 6,
            "metrics": [
                {
                    "type": "External",
                    "external": {"metric": metric, "target": {"type": "AverageValue", "averageValue": target}},
                }
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }


DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "target"},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "target"}},
        "template": {
            "metadata": {"labels": {"app": "target"}},
            "spec": {"containers": [{"name": "main", "image": "example.invalid/main:test"}]},
        },
    },
}


async def test_an_external_metric_moves_an_object_up_and_down(
    admin: Client, node: str, control_plane: ControlPlane
) -> None:
    front_proxy = (control_plane.folder / "front-proxy-ca.crt").read_bytes()
    async with serving(admin, front_proxy) as adapter:
        adapter.values["queued_seconds"] = "5"
        await admin.create(DEPLOYMENT)
        await admin.create(autoscaler("Deployment", "apps/v1", "target", {"name": "queued_seconds"}, "1500m"))
        await admin.wait("apps/v1/Deployment", "target", replicas(4), seconds=40)

        adapter.values["queued_seconds"] = "1"
        await admin.wait("apps/v1/Deployment", "target", replicas(1), seconds=40)

        assert adapter.callers == {"system:kube-controller-manager"}


@pytest.fixture
async def metrics(admin: Client) -> AsyncIterator[FakeMetrics]:
    """Every worker pod of the namespace tells what the test sets."""
    async with fake_metrics() as found:
        following = asyncio.create_task(found.follow(admin, WORKERS))
        yield found
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


@pytest.fixture
async def adapter(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[ProductAdapter]:
    async with adapter_serving(admin, control_plane, tmp_path) as running:
        yield running


async def test_a_managed_role_follows_its_workers_gauges_both_ways(
    admin: Client, node: str, metrics: FakeMetrics, adapter: ProductAdapter, operator: OperatorProcess
) -> None:
    metrics.gauges = {USAGE: 0.5}
    await admin.create(cluster(decode__replicas=None, decode__scaling=MANAGED))
    await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "True"), seconds=90)
    await admin.wait(SCALER, "demo-decode", replicas(1))

    metrics.of_pod["demo-decode-0"] = {USAGE: 2.0}
    await admin.wait(STATEFUL_SET, "demo-decode", at_least(3), seconds=90)

    metrics.of_pod.clear()
    metrics.gauges = {USAGE: 0.1}
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(1), seconds=90)
    await admin.wait("v1/Pod", "demo-decode-1", lambda found: found is None, seconds=60)
    assert (await admin.get(STATEFUL_SET, "demo-prefill"))["spec"]["replicas"] == 2


async def test_a_worker_that_is_unread_stops_the_scaling_and_is_told(
    admin: Client, node: str, metrics: FakeMetrics, adapter: ProductAdapter, operator: OperatorProcess
) -> None:
    metrics.gauges = {USAGE: 0.8}
    await admin.create(cluster(decode__replicas=None, decode__scaling={**MANAGED, "minReplicas": 2}))
    await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "True"), seconds=90)
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(2))

    metrics.silent.add("demo-decode-1")
    told = await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "False", "NoMetric"), seconds=60)
    assert "demo-decode-1" in message(told, "ScalingActive")
    assert (await admin.get(STATEFUL_SET, "demo-decode"))["spec"]["replicas"] == 2

    metrics.silent.clear()
    await admin.wait(CLUSTER, "demo", has_condition("ScalingActive", "True"), seconds=60)


async def test_a_users_own_autoscaler_drives_the_scaler_of_an_external_role(
    admin: Client, node: str, metrics: FakeMetrics, adapter: ProductAdapter, operator: OperatorProcess
) -> None:
    metrics.gauges = {USAGE: 0.5}
    external = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
    await admin.create(cluster(decode__replicas=None, decode__scaling=external))
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)
    wanted = {"name": USAGE, "selector": {"matchLabels": {"cluster": "demo", "role": "decode"}}}
    metrics.of_pod["demo-decode-0"] = {USAGE: 9.0}
    await admin.create(autoscaler("PDRoleScaler", "pdcluster.dev/v1alpha1", "demo-decode", wanted, "800m"))

    await admin.wait(SCALER, "demo-decode", at_least(5), seconds=60)
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(4))
    limited = await admin.wait(SCALER, "demo-decode", lambda found: (found or {})["status"].get("limitedBy") == "Max")
    assert limited is not None

    metrics.of_pod.clear()
    metrics.gauges = {USAGE: 0.1}
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(1), seconds=90)


def at_least(number: int):
    return lambda found: found is not None and found["spec"]["replicas"] >= number


def message(found: Manifest | None, kind: str) -> str:
    entries = (found or {})["status"]["conditions"]
    return str(next(entry["message"] for entry in entries if entry["type"] == kind))
