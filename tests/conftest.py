"""How tests are shared out when two of them run at once (`pytest -n 2 --dist loadgroup`)."""

from pathlib import Path

import pytest
from cluster_fixtures import control_plane

__all__ = ["control_plane"]

HERE = Path(__file__).parent
ONE_CONTROL_PLANE = ("cluster", "e2e")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay together, for their fixtures; all that need a cluster share the one control plane."""
    for item in items:
        folder = item.path.relative_to(HERE).parts[0]
        group = "cluster" if folder in ONE_CONTROL_PLANE else str(item.path.relative_to(HERE))
        item.add_marker(pytest.mark.xdist_group(group))
