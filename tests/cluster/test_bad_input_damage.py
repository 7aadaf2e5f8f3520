"""Damage by others, each with a reason that names it, and an end once it is undone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster_client import ApiError, Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_fixtures import namespace
from cluster_identity import chart_identity
from cluster_manifests import gpu_stateful_set
from cluster_operator import OperatorProcess, operator_process, turns

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]

HOLD = "example.invalid/hold"
NAMESPACE, SERVICE = "v1/Namespace", "v1/Service"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
POLICIES, BINDINGS = f"{ADMISSION}/validatingadmissionpolicies", f"{ADMISSION}/validatingadmissionpolicybindings"


@pytest.fixture
async def keeper(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    """An operator that asks after a second why pods are missing; it is the same process at the end."""
    identity = chart_identity(control_plane, admin.namespace, tmp_path)
    with operator_process(tmp_path, identity, admin.namespace, PDC_SHORTAGE_SECONDS="1") as process:
        yield process
        await turns(process, 1, since=0)


def degraded(found: Manifest | None) -> str:
    entries = (found or {})["status"]["conditions"]
    return next(str(entry["message"]) for entry in entries if entry["type"] == "Degraded")


def held(*finalizers: str) -> Manifest:
    return {"metadata": {"finalizers": list(finalizers)}}


async def ready(admin: Client) -> None:
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"), seconds=30)


async def test_a_cluster_whose_deletion_somebody_holds_says_who(
    admin: Client, node: str, keeper: OperatorProcess
) -> None:
    await admin.create(cluster())
    await ready(admin)
    await admin.merge(CLUSTER, "demo", held(HOLD))

    await admin.delete(CLUSTER, "demo")

    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "DeletionBlocked"))
    assert HOLD in degraded(found)
    await admin.merge(CLUSTER, "demo", held())
    await admin.wait(CLUSTER, "demo", lambda found: found is None)
    await admin.wait(STATEFUL_SET, "demo-decode", lambda found: found is None)


@pytest.mark.parametrize(("kind", "name"), [(SERVICE, "demo-decode"), (STATEFUL_SET, "demo-prefill")])
async def test_a_child_whose_deletion_somebody_holds_is_named(
    admin: Client, node: str, keeper: OperatorProcess, kind: str, name: str
) -> None:
    await admin.create(cluster())
    await ready(admin)
    before = await admin.merge(kind, name, held(HOLD))

    await admin.delete(kind, name)

    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "FinalizerStuck"))
    assert f"{kind.rpartition('/')[2]} {name} ({HOLD})" in degraded(found)
    await admin.merge(kind, name, held())
    uid = before["metadata"]["uid"]
    await admin.wait(kind, name, lambda found: found is not None and found["metadata"]["uid"] != uid)
    await ready(admin)


FOREIGN: list[tuple[str, Manifest]] = [
    (STATEFUL_SET, gpu_stateful_set("demo-prefill", 1, gpus=0)),
    ("v1/ServiceAccount", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "demo-router"}}),
    ("v1/Secret", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-router-tls"}}),
]


@pytest.mark.parametrize(("kind", "made"), FOREIGN, ids=[row[0] for row in FOREIGN])
async def test_an_object_of_somebody_else_at_a_childs_name_is_left_alone_and_named(
    admin: Client, node: str, keeper: OperatorProcess, kind: str, made: Manifest
) -> None:
    name = made["metadata"]["name"]
    uid = (await admin.create(made))["metadata"]["uid"]
    await admin.create(cluster())

    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "NameConflict"))

    assert f"{made['kind']} {admin.namespace}/{name}" in degraded(found)
    left = await admin.get(kind, name)
    assert (left["metadata"]["uid"], left["metadata"].get("ownerReferences")) == (uid, None)
    await admin.delete(kind, name)
    await admin.wait(kind, name, lambda found: found is None or found["metadata"]["uid"] != uid)
    await admin.merge(CLUSTER, "demo", {"metadata": {"annotations": {"example.invalid/look": "again"}}})
    await ready(admin)


async def test_what_shares_a_name_and_no_kind_with_a_child_is_nobodys_business(
    admin: Client, node: str, keeper: OperatorProcess
) -> None:
    for name in ("demo-router", "demo-prefill", "demo"):
        await admin.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"}})
    await admin.create(cluster())
    await ready(admin)
    assert (await admin.get("v1/ConfigMap", "demo-router"))["data"] == {"a": "b"}


QUOTA = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
LIMIT = {"type": "Container", "max": {"cpu": "1"}}


@pytest.mark.parametrize(
    ("guard", "reason", "words"),
    [
        ({**QUOTA, "spec": {"hard": {"pods": "1"}}}, "QuotaExceeded", "exceeded quota: small"),
        (
            {**QUOTA, "kind": "LimitRange", "spec": {"limits": [LIMIT]}},
            "LimitRangeViolated",
            "maximum cpu usage per Container is 1",
        ),
    ],
    ids=["quota of pods", "limit range"],
)
async def test_pods_that_the_namespace_refuses(
    admin: Client, node: str, keeper: OperatorProcess, guard: Manifest, reason: str, words: str
) -> None:
    await admin.create(guard)
    big = {"limits": {"cpu": "2"}}
    await admin.create(cluster(prefill__resources=big, decode__resources=big))

    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", reason), seconds=60)

    assert words in degraded(found)
    assert has_condition("Ready", "False", reason)(found)
    await admin.delete(f"v1/{guard['kind']}", "small")
    await ready(admin)


async def test_a_quota_that_leaves_no_room_for_a_child(admin: Client, node: str, keeper: OperatorProcess) -> None:
    await admin.create({**QUOTA, "spec": {"hard": {"count/services": "1"}}})
    await admin.create(cluster())
    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "QuotaExceeded"), seconds=60)
    assert "Service demo-" in degraded(found)


async def test_pod_security_that_refuses_the_pods(admin: Client, node: str, keeper: OperatorProcess) -> None:
    level = "pod-security.kubernetes.io/enforce"
    await admin.merge(NAMESPACE, admin.namespace, {"metadata": {"labels": {level: "restricted"}}})
    await admin.create(cluster())

    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "PodSecurityRefused"), seconds=60)

    assert "hostPath" in degraded(found)
    await admin.merge(NAMESPACE, admin.namespace, {"metadata": {"labels": {level: None}}})
    await ready(admin)


async def protected(admin: Client) -> None:
    """From now on nobody can delete the namespace's PDClusters, not even the namespace's own end."""
    where = {"matchLabels": {"kubernetes.io/metadata.name": admin.namespace}}
    rule = {
        "apiGroups": ["pdcluster.dev"],
        "apiVersions": ["*"],
        "operations": ["DELETE"],
        "resources": ["pdclusters"],
    }
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "kept by the test"}],
    }
    binding = {
        "policyName": admin.namespace,
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": where},
    }
    for path, spec in ((POLICIES, policy), (BINDINGS, binding)):
        await admin.call("POST", path, {}, {"metadata": {"name": admin.namespace}, "spec": spec})
    await until(admin, refused=True)


async def until(admin: Client, *, refused: bool) -> None:
    """The API server learns of a policy, and of its end, with a delay; TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while await is_refused(admin) is not refused:
            await asyncio.sleep(0.2)


async def unprotected(admin: Client) -> None:
    for path in (BINDINGS, POLICIES):
        await admin.call("DELETE", f"{path}/{admin.namespace}")
    await until(admin, refused=False)


async def is_refused(admin: Client) -> bool:
    try:
        await admin.delete(CLUSTER, "demo", dryRun=["All"])
    except ApiError as error:
        return "kept by the test" in error.message
    return False


@contextlib.asynccontextmanager
async def operator_elsewhere(control_plane: ControlPlane, watched: str, folder: Path) -> AsyncIterator[None]:
    """An operator whose own namespace and rights stay when the one that it watches ends."""
    async with namespace(control_plane) as home:
        identity = chart_identity(control_plane, home.namespace, folder, clusterwide=True)
        try:
            with operator_process(folder, identity, home.namespace, PDC_NAMESPACES=watched):
                yield
        finally:
            gone = "clusterrole,clusterrolebinding"
            control_plane.kubectl("delete", gone, "-l", "app.kubernetes.io/part-of=pdcluster", "--wait=false")


async def test_a_namespace_that_ends_around_a_cluster_that_stays(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with operator_elsewhere(control_plane, admin.namespace, tmp_path):
        await admin.create(cluster())
        await ready(admin)
        await protected(admin)
        try:
            await admin.delete(NAMESPACE, admin.namespace)
            told = has_condition("Degraded", "True", "NamespaceTerminating")
            found = await admin.wait(CLUSTER, "demo", told, seconds=60)
            assert "being terminated" in degraded(found)
        finally:
            await unprotected(admin)
        if await admin.find(CLUSTER, "demo"):
            await admin.delete(CLUSTER, "demo")
        await admin.wait(NAMESPACE, admin.namespace, lambda found: found is None, seconds=90)
    await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": admin.namespace}})
