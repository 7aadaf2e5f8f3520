"""Tests of this folder need a real control plane; KWOK plays the nodes."""

from pathlib import Path

import pytest
from cluster_fixtures import admin, anyio_backend, mark, node, operator

__all__ = ["admin", "anyio_backend", "node", "operator"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark(items, Path(__file__).parent)
    items.sort(key=lambda item: item.get_closest_marker("early") is None)
