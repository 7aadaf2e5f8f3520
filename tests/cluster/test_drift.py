"""What anybody does to a child is undone within seconds: an edit of any applied field, and a deletion."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_fixtures import gpu_node, namespace
from cluster_identity import chart_identity
from cluster_operator import operator_process

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
async def settled(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """The administrator, in a namespace with a PDCluster that is ready and an operator that looks after it."""
    folder = tmp_path_factory.mktemp("operator")
    async with namespace(control_plane) as admin, gpu_node(admin):
        with operator_process(folder, chart_identity(control_plane, admin.namespace, folder), admin.namespace):
            await admin.create(cluster())
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
            yield admin


@pytest.mark.parametrize(
    ("kind", "name", "patch", "path"),
    [
        (STATEFUL_SET, "demo-prefill", {"spec": {"replicas": 5}}, ["spec", "replicas"]),
        (
            "v1/Service",
            "demo-decode",
            {"spec": {"publishNotReadyAddresses": False}},
            ["spec", "publishNotReadyAddresses"],
        ),
        ("apps/v1/Deployment", "demo-router", {"spec": {"replicas": 3}}, ["spec", "replicas"]),
        ("networking.k8s.io/v1/NetworkPolicy", "demo-workers", {"spec": {"ingress": [{}]}}, ["spec", "ingress"]),
        (
            "policy/v1/PodDisruptionBudget",
            "demo-decode",
            {"spec": {"maxUnavailable": 2}},
            ["spec", "maxUnavailable"],
        ),
        ("rbac.authorization.k8s.io/v1/Role", "demo-router", {"rules": []}, ["rules"]),
        (
            "v1/ServiceAccount",
            "demo-router",
            {"metadata": {"labels": {"pdcluster.dev/cluster": "demo", "app.kubernetes.io/managed-by": "me"}}},
            ["metadata", "labels"],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_edit_of_a_child_is_undone(
    settled: Client, kind: str, name: str, patch: Manifest, path: list[str]
) -> None:
    def part(found: Manifest | None) -> Any:
        for step in path:
            found = (found or {}).get(step)
        return found

    wanted = part(await settled.get(kind, name))
    edited_to = part(await settled.merge(kind, name, patch))
    assert edited_to != wanted

    await settled.wait(kind, name, lambda found: part(found) == wanted, seconds=15)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (STATEFUL_SET, "demo-prefill"),
        ("v1/Service", "demo-prefill"),
        ("v1/Service", "demo-router"),
        ("apps/v1/Deployment", "demo-router"),
        ("policy/v1/PodDisruptionBudget", "demo-router"),
        ("networking.k8s.io/v1/NetworkPolicy", "demo-router"),
        ("v1/ServiceAccount", "demo-router"),
        ("rbac.authorization.k8s.io/v1/Role", "demo-router"),
        ("rbac.authorization.k8s.io/v1/RoleBinding", "demo-router"),
        ("v1/Secret", "demo-prefill-tls"),
    ],
)
async def test_a_deleted_child_comes_back(settled: Client, kind: str, name: str) -> None:
    uid = (await settled.get(kind, name))["metadata"]["uid"]

    await settled.delete(kind, name)

    await settled.wait(kind, name, lambda found: found is not None and found["metadata"]["uid"] != uid, seconds=20)
