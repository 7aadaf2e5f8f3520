"""The operator killed at a mutating call, before it is sent on or after it was committed: it always converges.

A fixed-seed sample runs by default; `PDC_KILL=all` takes every call of the scenario, in both ways. `PDC_KILL=1/4` takes
the first of four shards of them.
"""

import asyncio
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_operator import OperatorProcess
from cluster_proxy import Moment, Trap, proxied
from kill_calls import CALLS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

SAMPLED = ("PATCH statefulsets", "POST ", "PATCH pdclusters", "DELETE ")
"""The sample has one call of each of these kinds."""
EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
LEASE_SECONDS = "2"


def points() -> list[tuple[str, Moment]]:
    wanted = os.environ.get("PDC_KILL", "")
    every = [(name, moment) for name in CALLS for moment in Moment]
    if wanted == "all":
        return every
    if wanted:
        shard, _, shards = wanted.partition("/")
        return every[int(shard) - 1 :: int(shards)]
    chance = random.Random(20)
    return [chance.choice([point for point in every if point[0].startswith(start)]) for start in SAMPLED]


@pytest.mark.parametrize(("name", "moment"), points())
async def test_a_killed_operator_leaves_nothing_half_done(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path, name: str, moment: Moment
) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        operator = await asyncio.to_thread(
            OperatorProcess, tmp_path, kubeconfig, admin.namespace, {"PDC_LEASE_SECONDS": LEASE_SECONDS}
        )
        proxy.trap = Trap(name, moment, lambda: operator.program.send(signal.SIGKILL))
        try:
            async with asyncio.TaskGroup() as group:
                kubelet = group.create_task(keep_running(operator))
                try:
                    await scenario(admin)
                finally:
                    kubelet.cancel()
        finally:
            await asyncio.to_thread(operator.close)
            print("\n".join(proxy.calls))
        await expect_whole(admin)
        assert proxy.trap.sprung or not name.endswith("#1"), f"no kill: the scenario made no {name}"


async def keep_running(operator: OperatorProcess) -> None:
    """What a kubelet does: another operator in place of one that ended, for whatever reason."""
    while True:
        await asyncio.to_thread(ended, operator)
        await asyncio.to_thread(operator.restart)


def ended(operator: OperatorProcess) -> None:
    """Returns when it has ended, or at the latest when the test itself must have."""
    try:
        operator.program.wait(400)
    except subprocess.TimeoutExpired as late:
        raise AssertionError("the operator outlived its test") from late


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


async def expect_whole(admin: Client) -> None:
    """One of everything, of the last revision, and nothing that the spec no longer has."""
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role in (prefill,decode)")
    assert len(pods) == 2
    assert len({pod["metadata"]["labels"]["pdcluster.dev/revision"] for pod in pods}) == 1
    assert not [pod for pod in pods if pod["metadata"]["labels"].get("pdcluster.dev/counted") != "true"]
    assert await admin.list("policy/v1/PodDisruptionBudget") == []
    revisions = await admin.list("apps/v1/ControllerRevision", "pdcluster.dev/role=workers")
    assert len(revisions) == 2, [entry["metadata"]["name"] for entry in revisions]
