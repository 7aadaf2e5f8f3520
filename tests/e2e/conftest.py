"""Tests of this folder need a real control plane and run their pods as processes of this host."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_fixtures import admin, anyio_backend, mark
from kubelet_agent import Agent, node_agent

__all__ = ["admin", "anyio_backend"]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, Path(__file__).parent, "pods of this host")  # each takes what processor there is


@pytest.fixture
async def agent(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Agent]:
    """A node that runs the pods of this test, and nothing of which is left afterwards."""
    async with node_agent(admin, control_plane.server, f"host-{admin.namespace}", tmp_path) as running:
        yield running
