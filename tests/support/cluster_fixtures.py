"""Fixtures of every folder of tests that needs a cluster: the control plane, a namespace for each test, a fake node."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from cluster_client import Client, connect
from cluster_control_plane import ControlPlane
from cluster_identity import chart_identity
from cluster_manifests import fake_node
from cluster_operator import OperatorProcess, operator_process
from cluster_source import ForeignClusterError, cluster

DEFINITIONS = Path(__file__).resolve().parents[2] / "manifests" / "crd"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One real control plane for the session; a KUBECONFIG that is not named for tests ends the session at once."""
    definitions = sorted(DEFINITIONS.glob("*.yaml"))
    try:
        with cluster(tmp_path_factory.mktemp("control-plane"), definitions) as plane:
            yield plane
    except ForeignClusterError as error:
        pytest.exit(str(error), returncode=2)


@contextlib.asynccontextmanager
async def namespace(control_plane: ControlPlane) -> AsyncIterator[Client]:
    """The administrator, in a new namespace that goes afterwards."""
    name = f"pdc-test-{uuid4().hex[:8]}"
    async with connect(control_plane.kubeconfig, name) as client:
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        await client.wait("v1/ServiceAccount", "default", lambda account: account is not None)
        await client.wait("v1/ConfigMap", "kube-root-ca.crt", lambda trust: trust is not None)
        yield client
        await client.delete("v1/Namespace", name)


@contextlib.asynccontextmanager
async def gpu_node(client: Client) -> AsyncIterator[str]:
    """A fake node with eight GPUs."""
    name = f"node-{client.namespace}"
    await client.create(fake_node(name))
    yield name
    await client.delete("v1/Node", name)


@pytest.fixture
async def admin(control_plane: ControlPlane) -> AsyncIterator[Client]:
    """The administrator, in a namespace of the test's own."""
    async with namespace(control_plane) as client:
        yield client


@pytest.fixture
async def node(admin: Client) -> AsyncIterator[str]:
    """A fake node for this test alone."""
    async with gpu_node(admin) as name:
        yield name


@pytest.fixture
def operator(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The real operator, for the test's namespace alone."""
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace
    ) as process:
        yield process


def mark(items: list[pytest.Item], folder: Path, group: str = "") -> None:
    """Marks the tests below `folder` as tests that need a cluster; those of a group never run side by side."""
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker(pytest.mark.cluster)
            if group:
                item.add_marker(pytest.mark.xdist_group(group))
