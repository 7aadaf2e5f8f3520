"""The adapter's coming and going: an installation beside another one, its absence, and what is left of it."""

import base64
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from adapter_process import API_SERVICE_KIND, CHART, NAME, registered, serving
from cluster_adapter import API_SERVICE, foreign_api_service
from cluster_certificates import Authority
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane

pytestmark = pytest.mark.anyio

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "autoscaling.md"
BUNDLE = base64.b64encode(Authority("some-ca").certificate).decode()
DELETION_FAILED = "NamespaceDeletionDiscoveryFailure"


@pytest.fixture
async def free(admin: Client) -> AsyncIterator[None]:
    """Nobody serves external metrics before this test, nor after it."""
    assert await admin.find(API_SERVICE_KIND, API_SERVICE) is None
    yield
    if await admin.find(API_SERVICE_KIND, API_SERVICE):
        await admin.delete(API_SERVICE_KIND, API_SERVICE)


def remedy() -> list[str]:
    """The command that the guide gives for an adapter that is down, as words after `kubectl`."""
    _, _, section = GUIDE.read_text().partition("### When the adapter is down")
    block = re.search(r"```\n(kubectl .+)\n```", section)
    assert block is not None
    return block[1].split()[1:]


def hangs(found: Manifest | None) -> bool:
    entries = (found or {}).get("status", {}).get("conditions", [])
    return any(entry["type"] == DELETION_FAILED and entry["status"] == "True" for entry in entries)


async def test_with_the_adapter_down_a_namespace_still_deletes_after_the_documented_remedy(
    admin: Client, control_plane: ControlPlane, tmp_path: Path
) -> None:
    name = f"pdc-fresh-{uuid4().hex[:8]}"
    async with serving(admin, control_plane, tmp_path) as adapter:
        adapter.programs[0].close()
        await admin.wait(API_SERVICE_KIND, API_SERVICE, is_down, seconds=60)
        await admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await admin.delete("v1/Namespace", name)
        await admin.wait("v1/Namespace", name, hangs, seconds=60)

        done = control_plane.kubectl(*remedy())
        assert done.returncode == 0, done.stderr
        await admin.wait("v1/Namespace", name, lambda found: found is None, seconds=60)


def is_down(found: Manifest | None) -> bool:
    entries = (found or {}).get("status", {}).get("conditions", [])
    return any(entry["type"] == "Available" and entry["status"] == "False" for entry in entries)


def install(plane: ControlPlane, namespace: str) -> subprocess.CompletedProcess[str]:
    """Pods are not waited for: nothing runs them here."""
    settings = [f"--set={entry}" for entry in ("metricsAdapter.enabled=true", "crds.install=false")]
    return plane.helm("upgrade", "--install", "metrics", str(CHART), f"--namespace={namespace}", *settings)


async def test_the_chart_refuses_to_install_beside_another_adapter(
    admin: Client, free: None, control_plane: ControlPlane
) -> None:
    await admin.create(foreign_api_service("keda-operator-metrics-apiserver"))
    before = await admin.get(API_SERVICE_KIND, API_SERVICE)

    refused = install(control_plane, admin.namespace)
    assert refused.returncode != 0
    assert "belongs to Service monitoring/keda-operator-metrics-apiserver already" in refused.stderr
    assert (await admin.get(API_SERVICE_KIND, API_SERVICE))["spec"] == before["spec"]
    assert await admin.find("v1/Service", NAME) is None


async def test_an_upgrade_keeps_the_certificate_and_uninstalling_leaves_nothing_of_the_adapter(
    admin: Client, free: None, control_plane: ControlPlane
) -> None:
    installed = install(control_plane, admin.namespace)
    assert installed.returncode == 0, installed.stderr
    assert await admin.find(API_SERVICE_KIND, API_SERVICE)

    # What a replica writes is not the chart's to take away.
    await admin.merge("v1/Secret", f"{NAME}-tls", {"data": {"tls.crt": "YQ=="}})
    await admin.merge(API_SERVICE_KIND, API_SERVICE, {"spec": {"caBundle": BUNDLE}})
    again = install(control_plane, admin.namespace)
    assert again.returncode == 0, "its own registration is no other adapter"
    assert (await admin.get("v1/Secret", f"{NAME}-tls"))["data"] == {"tls.crt": "YQ=="}
    assert (await admin.get(API_SERVICE_KIND, API_SERVICE))["spec"]["caBundle"] == BUNDLE

    removed = control_plane.helm("uninstall", "metrics", f"--namespace={admin.namespace}", "--wait")
    assert removed.returncode == 0, removed.stderr
    assert await left_over(admin) == []


async def left_over(admin: Client) -> list[str]:
    kinds = {
        admin: ("v1/Secret", "v1/Service", "v1/ServiceAccount", "apps/v1/Deployment", "policy/v1/PodDisruptionBudget"),
        admin.within("kube-system"): ("rbac.authorization.k8s.io/v1/RoleBinding",),
    }
    wide = ("rbac.authorization.k8s.io/v1/ClusterRole", "rbac.authorization.k8s.io/v1/ClusterRoleBinding")
    selector = f"app.kubernetes.io/name={NAME}"
    found = [entry for client, names in kinds.items() for kind in names for entry in await client.list(kind, selector)]
    found += [entry for kind in (API_SERVICE_KIND, *wide) for entry in await admin.list(kind, selector)]
    return [entry["metadata"]["name"] for entry in found]


async def test_a_replica_that_starts_again_keeps_the_certificate(
    admin: Client, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with registered(admin, control_plane, tmp_path) as adapter:
        adapter.start()
        adapter.wait_ready()
        before = (await admin.get("v1/Secret", f"{NAME}-tls"))["data"]
        adapter.programs[0].send(signal.SIGTERM)
        assert adapter.programs[0].wait(15) == 0
        adapter.start()
        adapter.wait_ready()
        assert (await admin.get("v1/Secret", f"{NAME}-tls"))["data"] == before
