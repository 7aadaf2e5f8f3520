"""Which cluster the tests use: one that the caller names for tests, else a control plane of their own."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml
from cluster_control_plane import CONTEXT, ControlPlane, running, start_kwok

TEST_CONTEXT = re.compile(rf"^{CONTEXT}s?(-[a-z0-9-]+)?$")


class ForeignClusterError(Exception):
    """KUBECONFIG points to a cluster that is not named for tests."""


def named_for_tests(path: Path) -> tuple[str, Path]:
    """The server and the file of a kubeconfig whose current context is named for tests, else ForeignClusterError.

    The tests create and delete namespaces, nodes and cluster-wide objects: a context that merely happens to be current
    must never be enough.
    """
    content = yaml.safe_load(path.read_text())
    context = str(content.get("current-context", ""))
    if not TEST_CONTEXT.match(context):
        raise ForeignClusterError(
            f"KUBECONFIG={path} has the current context {context!r}: the cluster tests only touch a cluster whose "
            f"context is named {CONTEXT!r} or {CONTEXT}-SOMETHING; unset KUBECONFIG to let them start their own"
        )
    entry = next(entry["context"] for entry in content["contexts"] if entry["name"] == context)
    cluster = next(cluster["cluster"] for cluster in content["clusters"] if cluster["name"] == entry["cluster"])
    return cluster["server"], path


@contextlib.contextmanager
def cluster(folder: Path, definitions: Sequence[Path]) -> Iterator[ControlPlane]:
    """The cluster of this test session, with `definitions` applied."""
    given = os.environ.get("KUBECONFIG")
    if not given:
        with running(folder, definitions) as plane:
            yield plane
        return
    server, kubeconfig = named_for_tests(Path(given))
    with contextlib.ExitStack() as stack:
        plane = ControlPlane(folder, server, kubeconfig)
        plane.install(definitions)
        plane.programs["kwok"], address = start_kwok(folder, kubeconfig, stack)
        plane.programs["kwok"].wait_ready(address)
        yield plane
