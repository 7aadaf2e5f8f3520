"""A PodMonitor where the API server knows that kind, and a reason where it does not."""

import foreign_kinds
import pytest
from cluster_client import Client
from cluster_expect import CLUSTER, cluster, has_condition
from cluster_operator import OperatorProcess
from foreign_kinds import POD_MONITOR, POD_MONITORS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(150)]


async def test_it_comes_with_its_kind_and_goes_with_its_switch(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    wanted = {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s"}}
    await admin.create(cluster(observability=wanted))
    found = await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "PodMonitorNotAvailable"))
    assert found is not None
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    try:
        await foreign_kinds.install(admin, POD_MONITORS)
        monitor = await admin.wait(POD_MONITOR, "demo", lambda found: found is not None, seconds=60)
        assert monitor is not None
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics", "interval": "15s"}]
        await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"))

        await admin.merge(POD_MONITOR, "demo", {"spec": {"podMetricsEndpoints": []}})
        await admin.wait(POD_MONITOR, "demo", lambda found: bool(found and found["spec"]["podMetricsEndpoints"]))
        operator.restart()
        await admin.merge(CLUSTER, "demo", {"spec": {"observability": {"podMonitor": {"enabled": False}}}})
        await admin.wait(POD_MONITOR, "demo", lambda found: found is None)
    finally:
        await foreign_kinds.remove(admin, POD_MONITORS)
