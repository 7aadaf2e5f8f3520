"""The operator killed at a mutating call, before it is sent on or after it was committed: it always converges.

A fixed-seed sample runs by default; `PDC_KILL=all` takes every call of the scenario, in both ways.
"""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ADMIN_TOKEN, TRUST, ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_operator import OperatorProcess
from cluster_proxy import Moment, Proxy, Trap, proxied

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CALLS = 80
"""More than the scenario makes; a trap beyond the last call is never sprung, and the test says so."""
SAMPLE = (range(6), range(6, 24), range(24, 45), range(45, 58))
"""One of each: the beginning, the children, the scaling, the rollout."""
EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}


def points() -> list[tuple[int, Moment]]:
    if os.environ.get("PDC_KILL") == "all":
        return [(number, moment) for number in range(CALLS) for moment in Moment]
    chance = random.Random(20)
    return [(chance.choice(part), chance.choice(list(Moment))) for part in SAMPLE]


@pytest.mark.parametrize(("number", "moment"), points())
async def test_a_killed_operator_leaves_nothing_half_done(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path, number: int, moment: Moment
) -> None:
    trust = control_plane.folder / TRUST
    async with proxied(control_plane.server, tmp_path, trust, ADMIN_TOKEN) as (proxy, kubeconfig):
        operator = await asyncio.to_thread(
            OperatorProcess, tmp_path, kubeconfig, admin.namespace, {"PDC_LEASE_SECONDS": "3"}
        )
        killed = asyncio.Event()

        def strike() -> None:
            operator.program.send(signal.SIGKILL)
            killed.set()

        proxy.trap = Trap(number, moment, strike)
        try:
            async with asyncio.TaskGroup() as group:
                healer = group.create_task(heal(operator, killed))
                await scenario(admin)
                healer.cancel()
        finally:
            await asyncio.to_thread(operator.close)
        await expect_whole(admin, proxy)


async def heal(operator: OperatorProcess, killed: asyncio.Event) -> None:
    """What a Deployment does: another operator in place of the dead one."""
    await killed.wait()
    await asyncio.to_thread(operator.restart)


async def scenario(admin: Client) -> None:
    """Creation, scaling up, another revision, scaling down, a role less."""
    await admin.create(cluster(decode__replicas=None, decode__scaling=EXTERNAL, prefill__replicas=1))
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
    await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": 2}}, "scale")
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(2), seconds=60)
    changed = await admin.merge(
        CLUSTER, "demo", {"spec": {"engine": {"prepareThreads": 7}, "disruption": {"pdb": False}}}
    )

    def done(found: Manifest | None) -> bool:
        status = (found or {}).get("status", {})
        current = status.get("observedGeneration", 0) >= changed["metadata"]["generation"]
        return current and has_condition("Ready", "True")(found)

    await admin.wait(CLUSTER, "demo", done, seconds=90)
    await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": 1}}, "scale")
    await admin.wait(STATEFUL_SET, "demo-decode", replicas(1), seconds=60)
    await admin.wait("v1/Pod", "demo-decode-1", lambda found: found is None, seconds=60)


async def expect_whole(admin: Client, proxy: Proxy) -> None:
    """One of everything, of the last revision, and nothing that the spec no longer has."""
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role in (prefill,decode)")
    assert len(pods) == 2
    assert len({pod["metadata"]["labels"]["pdcluster.dev/revision"] for pod in pods}) == 1
    assert not [pod for pod in pods if pod["metadata"]["labels"].get("pdcluster.dev/counted") != "true"]
    assert await admin.list("policy/v1/PodDisruptionBudget") == []
    revisions = await admin.list("apps/v1/ControllerRevision", "pdcluster.dev/role=workers")
    assert len(revisions) == 2, [entry["metadata"]["name"] for entry in revisions]
    if proxy.trap and not proxy.trap.sprung:
        print(f"the scenario made only {len(proxy.calls)} calls: no kill at {proxy.trap.number}")
