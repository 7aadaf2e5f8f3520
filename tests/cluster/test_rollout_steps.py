"""At every step of a rollout on a real API server: scaling in and out, an updated pod deleted, a restart by kubectl."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition
from cluster_operator import OperatorProcess

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

HELD = 2147483647
EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 5}
SCALED = {
    f"{role}__{key}": value
    for role in ("prefill", "decode")
    for key, value in (("replicas", None), ("scaling", EXTERNAL))
}


async def rolled(admin: Client, at_step: Callable[[int], Awaitable[Any]]) -> set[int]:
    """Edits the spec and calls `at_step` at each number of updated pods; returns these once it is ready again."""
    changed = await admin.merge(CLUSTER, "demo", {"spec": {"engine": {"prepareThreads": 7}}})
    seen: set[int] = set()
    async with asyncio.timeout(200):
        async for found in admin.states(CLUSTER, "demo"):
            status = (found or {}).get("status", {})
            if status.get("observedGeneration", 0) < changed["metadata"]["generation"]:
                continue
            if status["rollout"]["phase"] != "Complete" and status["rollout"]["updated"] not in seen:
                seen.add(status["rollout"]["updated"])
                await at_step(status["rollout"]["updated"])
            elif has_condition("Ready", "True")(found):
                return seen
    raise AssertionError("a watch has no end")


async def workers(admin: Client, role: str = "") -> list[Manifest]:
    roles = f"pdcluster.dev/role={role}" if role else "pdcluster.dev/role in (prefill,decode)"
    return await admin.list("v1/Pod", f"pdcluster.dev/cluster=demo,{roles}")


async def expect_coherent(admin: Client) -> None:
    """One revision, partitions at rest, and no mark of a drain left."""
    pods = await workers(admin)
    target = (await admin.get(CLUSTER, "demo"))["status"]["targetRevision"]
    assert {pod["metadata"]["labels"]["pdcluster.dev/revision"] for pod in pods} == {target}
    assert {pod["metadata"]["labels"].get("pdcluster.dev/counted") for pod in pods} == {"true"}
    for role in ("prefill", "decode"):
        found = await admin.get(STATEFUL_SET, f"demo-{role}")
        assert found["spec"]["updateStrategy"]["rollingUpdate"]["partition"] == HELD


async def replaced(admin: Client, pod: Manifest) -> Manifest:
    """Deletes a pod and returns the one that takes its place."""
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    await admin.delete("v1/Pod", name, gracePeriodSeconds=0)
    found = await admin.wait("v1/Pod", name, lambda found: found is not None and found["metadata"]["uid"] != uid)
    assert found is not None
    return found


async def scale(admin: Client, role: str, number: int) -> None:
    await admin.merge(SCALER, f"demo-{role}", {"spec": {"replicas": number}}, "scale")


@pytest.mark.parametrize("numbers", [(4, 2), (2, 4), (1, 3)], ids=lambda pair: f"{pair[0]} then {pair[1]}")
async def test_scaling_at_every_step(
    admin: Client, node: str, operator: OperatorProcess, numbers: tuple[int, int]
) -> None:
    await admin.create(cluster(**SCALED, scalingPolicy={"coordination": "Independent"}))
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    for role in ("prefill", "decode"):
        await scale(admin, role, 3)
        await admin.wait(SCALER, f"demo-{role}", lambda found: (found or {})["status"].get("readyReplicas") == 3)

    async def step(updated: int) -> None:
        await scale(admin, "decode", numbers[updated % 2])
        await scale(admin, "prefill", numbers[(updated + 1) % 2])

    seen = await rolled(admin, step)

    assert len(seen) >= 2
    await scale(admin, "decode", 2)
    await scale(admin, "prefill", 2)
    await admin.wait(CLUSTER, "demo", lambda found: (found or {})["status"]["summary"]["decode"] == "2/2", seconds=60)
    await admin.wait(CLUSTER, "demo", lambda found: (found or {})["status"]["summary"]["prefill"] == "2/2", seconds=60)
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    assert len(await workers(admin)) == 4
    await expect_coherent(admin)


async def test_an_updated_pod_deleted_at_every_step_comes_back_updated(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster())
    first = await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    old = (first or {})["status"]["currentRevision"]
    came_back: list[str] = []

    async def step(_: int) -> None:
        updated = [pod for pod in await workers(admin) if pod["metadata"]["labels"]["pdcluster.dev/revision"] != old]
        for pod in updated[-1:]:
            again = await replaced(admin, pod)
            came_back.append(again["metadata"]["labels"]["pdcluster.dev/revision"])

    await rolled(admin, step)

    assert came_back
    assert old not in came_back
    await expect_coherent(admin)


async def test_kubectl_rollout_restart_is_undone_at_every_step(
    admin: Client, node: str, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
    names = ["statefulset/demo-prefill", "statefulset/demo-decode"]

    async def step(_: int) -> None:
        command = ["rollout", "restart", *names, "-n", admin.namespace]
        done = await asyncio.to_thread(control_plane.kubectl, *command)
        assert done.returncode == 0, done.stderr

    await rolled(admin, step)
    await expect_coherent(admin)

    before = {pod["metadata"]["uid"] for pod in await workers(admin)}
    await step(0)
    for role in ("prefill", "decode"):
        found = await admin.wait(STATEFUL_SET, f"demo-{role}", lambda found: restarted_at(found) == "")
        assert found is not None
    assert {pod["metadata"]["uid"] for pod in await workers(admin)} == before


def restarted_at(found: Manifest | None) -> str:
    notes = (found or {})["spec"]["template"]["metadata"].get("annotations", {})
    return str(notes.get("kubectl.kubernetes.io/restartedAt", "absent"))
