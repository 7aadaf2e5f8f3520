"""Every way in which the API server can fail a call: the cluster becomes ready all the same, with bounded calls."""

import asyncio
from pathlib import Path

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, cluster, has_condition
from cluster_operator import OperatorProcess
from cluster_proxy import Fault, Spoiling, proxied

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

TIMES = 2
CALLS = 60
"""About three times what an undisturbed creation takes."""


@pytest.mark.parametrize(
    "fault",
    [
        Fault("PATCH statefulsets", 409, TIMES),
        Fault("PATCH services", 429, TIMES, retry_after=1),
        Fault("PATCH deployments", 500, TIMES),
        Fault("PATCH networkpolicies", Spoiling.SILENCE, TIMES),
        Fault("PATCH controllerrevisions", Spoiling.CUT, TIMES),
        Fault("GET (statefulsets|pods)", 500, TIMES),
    ],
    ids=lambda fault: f"{fault.does} {fault.pattern}",
)
async def test_a_call_that_fails_is_made_up_for(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path, fault: Fault
) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        proxy.faults.append(fault)
        operator = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, {})
        try:
            await admin.create(cluster())
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=120)
        finally:
            await asyncio.to_thread(operator.close)
            print(operator.program.tail())
        assert fault.hits == fault.times
        assert len(proxy.calls) <= CALLS, "\n".join(proxy.calls)
