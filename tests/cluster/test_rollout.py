"""Rollouts on a real API server: one pod at a time, edits in the middle, a pause."""

from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_operator import OperatorProcess

pytestmark = pytest.mark.anyio

HELD = 2147483647


def threads(number: int | None) -> Manifest:
    return {"spec": {"engine": {"prepareThreads": number}}}


async def revisions(admin: Client) -> set[str]:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role in (prefill,decode)")
    return {pod["metadata"]["labels"]["pdcluster.dev/revision"] for pod in pods}


async def uids(admin: Client) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await admin.list("v1/Pod", "pdcluster.dev/cluster=demo")}


async def settled(admin: Client, generation: int) -> Manifest:
    def holds(found: Manifest | None) -> bool:
        status = (found or {}).get("status", {})
        return status.get("observedGeneration", 0) >= generation and has_condition("Ready", "True")(found)

    found = await admin.wait(CLUSTER, "demo", holds, seconds=90)
    assert found is not None
    return found


async def edit(admin: Client, patch: Any) -> int:
    return int((await admin.merge(CLUSTER, "demo", patch))["metadata"]["generation"])


async def test_a_new_revision_reaches_every_pod_and_rests_afterwards(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster())
    first = await settled(admin, 1)

    last = await settled(admin, await edit(admin, threads(7)))

    assert last["status"]["currentRevision"] != first["status"]["currentRevision"]
    assert await revisions(admin) == {last["status"]["currentRevision"]}
    for role in ("prefill", "decode"):
        found = await admin.get(STATEFUL_SET, f"demo-{role}")
        assert found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == HELD
        assert found["status"]["currentRevision"] == found["status"]["updateRevision"]


@pytest.mark.parametrize("then", [None, 8], ids=["B to A", "B to C"])
async def test_an_edit_in_the_middle(admin: Client, node: str, operator: OperatorProcess, then: int | None) -> None:
    await admin.create(cluster(prefill__replicas=3, decode__replicas=3))
    first = await settled(admin, 1)
    await edit(admin, threads(7))
    await admin.wait(CLUSTER, "demo", lambda found: (found or {})["status"]["rollout"]["updated"] in (1, 2, 3))

    last = await settled(admin, await edit(admin, threads(then)))

    assert await revisions(admin) == {last["status"]["currentRevision"]}
    assert (last["status"]["currentRevision"] == first["status"]["currentRevision"]) == (then is None)


async def test_a_pause_holds_and_a_resume_goes_on(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(cluster())
    await settled(admin, 1)
    before = await uids(admin)
    await edit(admin, {"spec": {"rollout": {"paused": True}, **threads(7)["spec"]}})
    await admin.wait(CLUSTER, "demo", has_condition("RevisionCoherent", "False", "Paused"))
    assert await uids(admin) == before

    await settled(admin, await edit(admin, {"spec": {"rollout": {"paused": False}}}))

    assert len(await revisions(admin)) == 1
    router = {pod["metadata"]["uid"] for pod in await admin.list("v1/Pod", "pdcluster.dev/role=router")}
    assert await uids(admin) & before == router, "the router serves through a rollout of the workers"
