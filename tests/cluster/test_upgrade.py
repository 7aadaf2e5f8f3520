"""From what an earlier release left on a cluster to this one: nothing restarts, nothing is lost, all goes on.

`tests/upgrade` has a snapshot of each release (`make snapshot`). This release's chart is put over it by Helm, and this
release's operator runs with the rights that it then has.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import upgrade_snapshot
from cluster_client import Client, Manifest, connect
from cluster_control_plane import ControlPlane, running
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, has_condition, replicas
from cluster_identity import identity_of, refused
from cluster_manifests import fake_node
from cluster_operator import operator_process, turns
from upgrade_snapshot import NAME, NAMESPACE, RELEASES, SYSTEM, Snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CHART = Path(__file__).resolve().parents[2] / "charts" / "pdcluster"
FOLDERS = sorted(path.parent for path in RELEASES.glob("*/objects.json"))
DEFINITION = "apiextensions.k8s.io/v1/CustomResourceDefinition"
PODS = 5

Identities = dict[tuple[str, str], str]


@pytest.fixture(params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def release(request: pytest.FixtureRequest) -> Snapshot:
    return Snapshot.read(request.param)


@pytest.fixture
async def upgraded(release: Snapshot, tmp_path: Path) -> AsyncIterator[tuple[ControlPlane, Client]]:
    """A control plane of the test's own with the earlier release, its PDCluster and the pods of that."""
    with running(tmp_path, [release.folder / upgrade_snapshot.DEFINITIONS]) as plane:
        async with connect(plane.kubeconfig, NAMESPACE) as admin:
            await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            await admin.create(fake_node("node"))
            helm(plane, "install", release.as_chart(tmp_path / "chart"), "--create-namespace", "--take-ownership")
            await upgrade_snapshot.brought_back(plane.etcd, release.objects)
            for role in ("prefill", "decode"):
                await admin.wait(STATEFUL_SET, f"{NAME}-{role}", are_ready(2), seconds=60)
            await admin.wait("apps/v1/Deployment", f"{NAME}-router", are_ready(1), seconds=60)
            yield plane, admin


def helm(plane: ControlPlane, verb: str, chart: Path, *flags: str) -> None:
    done = plane.helm(verb, "pdcluster", str(chart), "--namespace", SYSTEM, "--wait", "--timeout", "90s", *flags)
    assert done.returncode == 0, done.stderr


def are_ready(number: int) -> Callable[[Manifest | None], bool]:
    return lambda found: found is not None and found.get("status", {}).get("readyReplicas") == number


async def pods(admin: Client) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await admin.list("v1/Pod", f"pdcluster.dev/cluster={NAME}")}


async def children(admin: Client) -> Identities:
    found = await upgrade_snapshot.children(admin)
    return {(entry["kind"], entry["metadata"]["name"]): entry["metadata"]["uid"] for entry in found}


async def test_this_release_takes_over_what_an_earlier_one_left(
    release: Snapshot, upgraded: tuple[ControlPlane, Client], tmp_path: Path
) -> None:
    plane, admin = upgraded
    pods_before, children_before = await pods(admin), await children(admin)
    stored = await admin.get(CLUSTER, NAME)
    assert len(pods_before) == PODS
    assert children_before == identities(release)

    await asyncio.to_thread(helm, plane, "upgrade", CHART)
    await the_stored_object_is_valid(admin, stored)
    kubeconfig = identity_of(plane, SYSTEM, tmp_path)
    with operator_process(tmp_path, kubeconfig, SYSTEM, PDC_NAMESPACES="", PDC_RESYNC_SECONDS="0.5") as operator:
        await turns(operator, 3)
        await admin.wait(CLUSTER, NAME, has_converged, seconds=60)
        await nothing_moved(admin, pods_before, children_before)
        await it_goes_on(admin, pods_before)
        await admin.delete(CLUSTER, NAME)
        for role in ("prefill", "decode"):
            await admin.wait(STATEFUL_SET, f"{NAME}-{role}", lambda found: found is None, seconds=60)
        await nothing_is_left(admin)
    assert refused(plane, SYSTEM) == []


def identities(release: Snapshot) -> Identities:
    metadata = [(entry["kind"], entry["metadata"]) for entry in release.objects if entry["kind"] != "PDCluster"]
    return {(kind, entry["name"]): entry["uid"] for kind, entry in metadata}


def has_converged(found: Manifest | None) -> bool:
    told = (found or {"metadata": {"generation": 0}, "status": {}})["status"].get("observedGeneration", 0)
    return has_condition("Ready", "True")(found) and told == (found or {})["metadata"]["generation"]


async def the_stored_object_is_valid(admin: Client, stored: Manifest) -> None:
    """As it is stored, for this release's definitions, and without a field less."""
    again = await admin.call("PUT", admin.path(CLUSTER, NAME), {"dryRun": "All"}, stored)
    assert again["spec"].items() >= stored["spec"].items()


async def nothing_moved(admin: Client, pods_before: set[str], children_before: Identities) -> None:
    """No pod is another one, no child is lost or new by name, and each still has its owner."""
    owner = (await admin.get(CLUSTER, NAME))["metadata"]["uid"]
    assert await pods(admin) == pods_before
    now = await children(admin)
    assert children_before.items() <= now.items()
    for entry in await upgrade_snapshot.children(admin):
        assert [reference["uid"] for reference in entry["metadata"]["ownerReferences"]] == [owner], entry["metadata"]


async def it_goes_on(admin: Client, pods_before: set[str]) -> None:
    """An edit that no pod sees, more pods like the others, and a new revision, all from where the release left off."""
    await admin.merge(CLUSTER, NAME, {"spec": {"disruption": {"maxUnavailable": 2}}})
    await admin.wait(CLUSTER, NAME, has_converged, seconds=60)
    assert await pods(admin) == pods_before

    await admin.merge(SCALER, f"{NAME}-decode", {"spec": {"replicas": 3}}, "scale")
    await admin.wait(STATEFUL_SET, f"{NAME}-decode", replicas(3))
    await admin.wait(STATEFUL_SET, f"{NAME}-decode", are_ready(3))
    assert pods_before <= await pods(admin)

    before = (await admin.get(CLUSTER, NAME))["status"]["currentRevision"]
    await admin.merge(CLUSTER, NAME, {"spec": {"engine": {"prepareThreads": 7}}})
    await admin.wait(CLUSTER, NAME, lambda found: has_converged(found) and revision(found) != before, seconds=90)


def revision(found: Manifest | None) -> str:
    return str((found or {})["status"]["currentRevision"])


async def nothing_is_left(admin: Client) -> None:
    async with asyncio.timeout(60):
        while await children(admin):
            await asyncio.sleep(0.2)
