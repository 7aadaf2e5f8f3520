"""The real horizontal autoscaler reads an adapter outside the cluster and moves an object both ways."""

import pytest
from cluster_adapter import serving
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane

pytestmark = pytest.mark.anyio

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

AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "target"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "target"},
        "minReplicas": 1,
        "maxReplicas": 10,
        "metrics": [
            {
                "type": "External",
                "external": {
                    "metric": {"name": "queued_seconds"},
                    "target": {"type": "AverageValue", "averageValue": "1500m"},
                },
            }
        ],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
    },
}


def replicas(expected: int):
    def holds(found: Manifest | None) -> bool:
        return found is not None and found["spec"]["replicas"] == expected

    return holds


async def test_an_external_metric_moves_an_object_up_and_down(
    admin: Client, node: str, control_plane: ControlPlane
) -> None:
    front_proxy = (control_plane.folder / "front-proxy-ca.crt").read_bytes()
    async with serving(admin, front_proxy) as adapter:
        adapter.values["queued_seconds"] = "5"
        await admin.create(DEPLOYMENT)
        await admin.create(AUTOSCALER)
        await admin.wait("apps/v1/Deployment", "target", replicas(4), seconds=40)

        adapter.values["queued_seconds"] = "1"
        await admin.wait("apps/v1/Deployment", "target", replicas(1), seconds=40)

        assert adapter.callers == {"system:kube-controller-manager"}
