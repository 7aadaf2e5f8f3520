"""The test bench itself: what the other tests of this folder take for granted."""

import ipaddress
from pathlib import Path

import pytest
import yaml
from cluster_client import ApiError, Client, Manifest, connect
from cluster_control_plane import ControlPlane
from cluster_manifests import gpu_stateful_set
from cluster_source import ForeignClusterError, named_for_tests
from side_by_side import loopback

pytestmark = pytest.mark.anyio


def all_ready(replicas: int):
    def holds(found: Manifest | None) -> bool:
        return found is not None and found.get("status", {}).get("readyReplicas") == replicas

    return holds


async def test_pods_with_gpus_become_ready_on_a_fake_node(admin: Client, node: str) -> None:
    await admin.create(gpu_stateful_set("worker", replicas=3))

    await admin.wait("apps/v1/StatefulSet", "worker", all_ready(3), seconds=20)

    pods = await admin.list("v1/Pod", "app=worker")
    assert {pod["spec"]["nodeName"] for pod in pods} == {node}
    assert all(ipaddress.ip_address(pod["status"]["podIP"]) in loopback() for pod in pods)


async def test_pods_beyond_the_gpus_of_the_node_stay_pending(admin: Client, node: str) -> None:
    await admin.create(gpu_stateful_set("worker", replicas=3, gpus=4))

    await admin.wait("apps/v1/StatefulSet", "worker", all_ready(2), seconds=20)

    phases = sorted(pod["status"]["phase"] for pod in await admin.list("v1/Pod", "app=worker"))
    assert phases == ["Pending", "Running", "Running"]


async def test_another_user_is_held_to_their_rights(admin: Client, control_plane: ControlPlane) -> None:
    async with connect(control_plane.kubeconfig, admin.namespace, "alice") as alice:
        with pytest.raises(ApiError, match="alice") as refused:
            await alice.list("v1/Pod")
    assert (refused.value.status, refused.value.reason) == (403, "Forbidden")


async def test_helm_reaches_the_cluster(admin: Client, control_plane: ControlPlane) -> None:
    listed = control_plane.helm("list", "--namespace", admin.namespace, "--output", "json")
    assert (listed.returncode, listed.stdout.strip()) == (0, "[]"), listed.stderr


async def test_the_server_tells_a_version_that_clients_can_parse(admin: Client) -> None:
    version = await admin.call("GET", "/version")
    assert version["gitVersion"].startswith("v1.")
    assert int(version["minor"].rstrip("+")) >= 33


@pytest.mark.parametrize("context", ["pdcluster-test", "pdcluster-tests", "pdcluster-test-ci-7"])
def test_a_kubeconfig_named_for_tests_is_used(tmp_path: Path, context: str) -> None:
    path = write_kubeconfig(tmp_path, context)
    assert named_for_tests(path) == ("https://127.0.0.1:1", path)


@pytest.mark.parametrize("context", ["", "production", "my-pdcluster-test", "pdcluster-testing", "pdcluster-test-"])
def test_any_other_kubeconfig_is_refused(tmp_path: Path, context: str) -> None:
    with pytest.raises(ForeignClusterError, match="KUBECONFIG"):
        named_for_tests(write_kubeconfig(tmp_path, context))


def write_kubeconfig(folder: Path, context: str) -> Path:
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": context,
                "contexts": [{"name": context, "context": {"cluster": "c"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
            }
        )
    )
    return path
