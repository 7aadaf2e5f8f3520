"""What anybody does to a child of any kind is undone within seconds: an edit of an applied field, and a deletion."""

from collections.abc import AsyncIterator
from typing import Any

import foreign_kinds
import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition
from cluster_fixtures import gpu_node, namespace
from cluster_identity import chart_identity
from cluster_operator import operator_process
from foreign_kinds import POD_MONITOR, POD_MONITORS

from pdcluster_operator.certificate_facts import facts_of
from pdcluster_operator.resources import BY_KIND, CHILDREN, OPTIONAL

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("drift")]

MARK = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}
UNMARKED = {"metadata": {"labels": {"pdcluster.dev/cluster": None}}}
"""Without this label the watches no longer tell of it."""
LABELS = ["metadata", "labels"]
GROUP = "rbac.authorization.k8s.io"
ACCOUNT, SERVICE, SECRET = "v1/ServiceAccount", "v1/Service", "v1/Secret"
ROLE, BINDING = f"{GROUP}/v1/Role", f"{GROUP}/v1/RoleBinding"
DEPLOYMENT, REVISION = "apps/v1/Deployment", "apps/v1/ControllerRevision"
POLICY, BUDGET = "networking.k8s.io/v1/NetworkPolicy", "policy/v1/PodDisruptionBudget"
AUTOSCALER = "autoscaling/v2/HorizontalPodAutoscaler"
NOT_HERE = {"Certificate"}
"""Kinds that no cluster of this file has: nobody is asked for a Certificate."""

EDITS: list[tuple[str, str, Manifest, list[str]]] = [
    (STATEFUL_SET, "demo-prefill", {"spec": {"replicas": 5}}, ["spec", "replicas"]),
    (STATEFUL_SET, "demo-prefill", UNMARKED, LABELS),
    (SERVICE, "demo-decode", {"spec": {"publishNotReadyAddresses": False}}, ["spec", "publishNotReadyAddresses"]),
    (SERVICE, "demo-decode", UNMARKED, LABELS),
    (SERVICE, "demo-router", {"spec": {"selector": {"pdcluster.dev/role": "prefill"}}}, ["spec", "selector"]),
    (DEPLOYMENT, "demo-router", {"spec": {"replicas": 3}}, ["spec", "replicas"]),
    (POLICY, "demo-workers", {"spec": {"ingress": [{}]}}, ["spec", "ingress"]),
    (BUDGET, "demo-decode", {"spec": {"maxUnavailable": 2}}, ["spec", "maxUnavailable"]),
    (ROLE, "demo-router", {"rules": []}, ["rules"]),
    (BINDING, "demo-router", {"subjects": []}, ["subjects"]),
    (ACCOUNT, "demo-router", MARK, LABELS),
    (AUTOSCALER, "demo-prefill", {"spec": {"maxReplicas": 9}}, ["spec", "maxReplicas"]),
    (SCALER, "demo-prefill", {"metadata": {"labels": {"pdcluster.dev/role": "decode"}}}, LABELS),
    (SCALER, "demo-decode", UNMARKED, LABELS),
    (SCALER, "demo-decode", {"metadata": {"ownerReferences": None}}, ["metadata", "ownerReferences"]),
    (REVISION, "demo-workers-", MARK, LABELS),
    (REVISION, "demo-workers-", {"revision": 7}, ["revision"]),
    (REVISION, "demo-router-", UNMARKED, LABELS),
    (POD_MONITOR, "demo", {"spec": {"podMetricsEndpoints": []}}, ["spec", "podMetricsEndpoints"]),
]
DELETIONS = [
    (STATEFUL_SET, "demo-prefill"),
    (SERVICE, "demo-prefill"),
    (SERVICE, "demo-router"),
    (DEPLOYMENT, "demo-router"),
    (BUDGET, "demo-router"),
    (POLICY, "demo-router"),
    (ACCOUNT, "demo-router"),
    (ROLE, "demo-router"),
    (BINDING, "demo-router"),
    (AUTOSCALER, "demo-prefill"),
    (SCALER, "demo-decode"),
    (REVISION, "demo-workers-"),
    (REVISION, "demo-router-"),
    (POD_MONITOR, "demo"),
    (SECRET, "demo-prefill-tls"),
    (SECRET, "demo-ca"),
]


@pytest.fixture(scope="module")
async def settled(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """The administrator, in a namespace with a PDCluster that is ready and an operator that looks after it."""
    folder = tmp_path_factory.mktemp("operator")
    wanted = cluster(
        prefill__replicas=None,
        prefill__scaling={"mode": "Managed", "maxReplicas": 4},
        decode__replicas=None,
        decode__scaling={"mode": "External", "maxReplicas": 4},
        observability={"podMonitor": {"enabled": True}},
    )
    async with namespace(control_plane) as admin, gpu_node(admin):
        await foreign_kinds.install(admin, POD_MONITORS)
        try:
            with operator_process(folder, chart_identity(control_plane, admin.namespace, folder), admin.namespace):
                await admin.create(wanted)
                await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
                yield admin
        finally:
            await foreign_kinds.remove(admin, POD_MONITORS)


def test_the_tables_have_every_kind() -> None:
    made = {resource.kind for resource in (*CHILDREN, *OPTIONAL)} - NOT_HERE
    deleted = {kind.rpartition("/")[2] for kind, _ in DELETIONS}
    edited = {kind.rpartition("/")[2] for kind, *_ in EDITS} | {BY_KIND["Secret"].kind}
    assert (deleted, edited) == (made, made)


async def whole(admin: Client, kind: str, name: str) -> str:
    """The full name of a child; one that ends with a dash goes on with a revision."""
    if not name.endswith("-"):
        return name
    found = [entry["metadata"]["name"] for entry in await admin.list(kind)]
    return next(entry for entry in found if entry.startswith(name))


def part(found: Manifest | None, path: list[str]) -> Any:
    value: Any = found
    for step in path:
        value = (value or {}).get(step)
    return value


@pytest.mark.parametrize(
    ("kind", "start", "patch", "path"), EDITS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_an_edit_of_a_child_is_undone(
    settled: Client, kind: str, start: str, patch: Manifest, path: list[str]
) -> None:
    name = await whole(settled, kind, start)
    before = await settled.get(kind, name)

    edited = await settled.merge(kind, name, patch)

    assert part(edited, path) != part(before, path)
    wanted = part(before, path)
    found = await settled.wait(kind, name, lambda found: part(found, path) == wanted, seconds=15)
    assert found is not None
    assert found["metadata"]["uid"] == before["metadata"]["uid"], "put right, and not made anew"


async def test_a_certificate_that_somebody_spoils_is_issued_again(settled: Client) -> None:
    await settled.merge(SECRET, "demo-decode-tls", {"data": {"tls.crt": "Z2FyYmFnZQ=="}})

    await settled.wait(SECRET, "demo-decode-tls", lambda found: bool(found and not facts_of(found).problem), seconds=20)


@pytest.mark.parametrize(("kind", "start"), DELETIONS)
async def test_a_deleted_child_comes_back(settled: Client, kind: str, start: str) -> None:
    name = await whole(settled, kind, start)
    uid = (await settled.get(kind, name))["metadata"]["uid"]

    await settled.delete(kind, name)

    await settled.wait(kind, name, lambda found: found is not None and found["metadata"]["uid"] != uid, seconds=20)


async def test_all_of_it_leaves_a_cluster_that_is_ready(settled: Client) -> None:
    await settled.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    await settled.wait(CLUSTER, "demo", has_condition("Degraded", "False"), seconds=60)
