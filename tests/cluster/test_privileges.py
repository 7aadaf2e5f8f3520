"""The real operator with the chart's rights alone: a PDCluster's whole life, and nothing is refused."""

from pathlib import Path

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_identity import chart_identity, refused
from cluster_operator import operator_process

pytestmark = pytest.mark.anyio


async def test_a_whole_life_needs_no_right_that_the_chart_does_not_grant(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    kubeconfig = chart_identity(control_plane, admin.namespace, tmp_path)

    with operator_process(tmp_path, kubeconfig, admin.namespace) as operator:
        await admin.create(cluster())
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
        await admin.delete(STATEFUL_SET, "demo-decode")
        await admin.wait(STATEFUL_SET, "demo-decode", lambda found: found is not None, seconds=30)
        operator.restart()
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
        await admin.delete(CLUSTER, "demo")
        await admin.wait(STATEFUL_SET, "demo-decode", lambda found: found is None, seconds=60)

    assert refused(control_plane, admin.namespace) == []
