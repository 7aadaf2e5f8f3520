"""Scale-in on a real API server with workers that answer: who drains, stays, is resumed, and what a restart does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from cluster_client import Client, Manifest
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_operator import OperatorProcess, turns, turns_taken
from fake_admin import FakeAdmin, admin_of

pytestmark = pytest.mark.anyio

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 6}
SCALED = {"decode__replicas": None, "decode__scaling": EXTERNAL}


async def scale(admin: Client, number: int) -> None:
    await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": number}}, "scale")


def ready(number: int):
    return lambda found: (found or {}).get("status", {}).get("readyReplicas") == number


@contextlib.asynccontextmanager
async def four_workers(admin: Client) -> AsyncIterator[list[FakeAdmin]]:
    """A cluster whose four decode pods answer, by ordinal."""
    await admin.create(cluster(**SCALED, tls={"mode": "Disabled"}, drain={"timeoutSeconds": 120}))
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)
    await scale(admin, 4)
    await admin.wait(SCALER, "demo-decode", ready(4), seconds=60)
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for ordinal in range(4):
            pod = await admin.get("v1/Pod", f"demo-decode-{ordinal}")
            found.append(await stack.enter_async_context(admin_of(pod["status"]["podIP"])))
        yield found


async def test_the_highest_drain_and_go_only_when_they_are_empty(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    async with four_workers(admin) as workers:
        await scale(admin, 2)
        for ordinal in (2, 3):
            await workers[ordinal].wait_for("Drain")
        scaler = await admin.wait(SCALER, "demo-decode", lambda found: (found or {})["status"]["replicas"] == 2)
        assert (scaler or {})["status"]["limitedBy"] == "Draining"
        before = await turns_taken(operator)
        workers[2].empty.set()
        await turns(operator, 1, since=before)
        assert (await admin.get(STATEFUL_SET, "demo-decode"))["spec"]["replicas"] == 4, "the highest goes first"

        workers[3].empty.set()

        await admin.wait(STATEFUL_SET, "demo-decode", replicas(2))
        assert workers[0].calls == workers[1].calls == []


async def test_rising_again_resumes_before_anything_new_is_made(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    async with four_workers(admin) as workers:
        uids = await pods(admin)
        await scale(admin, 1)
        for ordinal in (1, 2, 3):
            await workers[ordinal].wait_for("Drain")

        await scale(admin, 3)

        for ordinal in (1, 2):
            await workers[ordinal].wait_for("Drain", "Resume")
        await admin.wait(SCALER, "demo-decode", lambda found: (found or {})["status"]["replicas"] == 3)
        workers[3].empty.set()
        await admin.wait(STATEFUL_SET, "demo-decode", replicas(3))
        await admin.wait("v1/Pod", "demo-decode-3", lambda found: found is None)
        assert await pods(admin) == {name: uid for name, uid in uids.items() if name != "demo-decode-3"}


async def test_an_operator_that_restarts_asks_again_and_keeps_the_deadline(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    async with four_workers(admin) as workers:
        await scale(admin, 3)
        await workers[3].wait_for("Drain")
        before = await marks(admin)

        await asyncio.to_thread(operator.restart)

        await workers[3].wait_for("Drain", "Drain")
        assert await marks(admin) == before
        workers[3].empty.set()
        await admin.wait(STATEFUL_SET, "demo-decode", replicas(3))


async def test_a_deleted_scaler_comes_back_with_the_live_number(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster(**SCALED, scalingPolicy={"coordination": "Independent"}))
    await admin.wait(SCALER, "demo-decode", replicas(1), seconds=60)
    await scale(admin, 6)
    await admin.wait(SCALER, "demo-decode", ready(6), seconds=60)
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"))
    uids = await pods(admin)
    uid = (await admin.get(SCALER, "demo-decode"))["metadata"]["uid"]

    await admin.delete(SCALER, "demo-decode")

    def anew(found: Manifest | None) -> bool:
        return found is not None and found["metadata"]["uid"] != uid

    found = await admin.wait(SCALER, "demo-decode", anew)
    assert (found or {})["spec"]["replicas"] == 6
    await admin.wait(SCALER, "demo-decode", ready(6))
    assert await pods(admin) == uids


async def pods(admin: Client) -> dict[str, str]:
    found = await admin.list("v1/Pod", "pdcluster.dev/role=decode")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


async def marks(admin: Client) -> dict[str, str]:
    notes = (await admin.get("v1/Pod", "demo-decode-3"))["metadata"]["annotations"]
    return {key: value for key, value in notes.items() if key.startswith("pdcluster.dev/drain")}
