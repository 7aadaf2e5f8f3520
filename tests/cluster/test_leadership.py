"""Two operators, one Lease: the second takes over when the first dies or hangs, and the first writes nothing late."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_identity import chart_identity
from cluster_operator import OperatorProcess, operator_process
from cluster_proxy import Fault, Hold, Spoiling, proxied

pytestmark = pytest.mark.anyio

LEASE = "coordination.k8s.io/v1/Lease"
LEASE_NAME = "pdcluster-operator"


@contextlib.contextmanager
def two_operators(
    folder: Path, control_plane: ControlPlane, namespace: str
) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    with contextlib.ExitStack() as stack:
        started = []
        for name in ("first", "second"):
            (folder / name).mkdir()
            process = operator_process(
                folder / name,
                chart_identity(control_plane, namespace, folder),
                namespace,
                PDC_LEASE_SECONDS="4",
                PDC_IDENTITY=name,
            )
            started.append(stack.enter_context(process))
        yield started[0], started[1]


def held_by(name: str) -> Callable[[Manifest | None], bool]:
    return lambda found: found is not None and found["spec"].get("holderIdentity") == name


async def holder(admin: Client) -> str:
    def held(found: Manifest | None) -> bool:
        return bool(found and found["spec"].get("holderIdentity"))

    found = await admin.wait(LEASE, LEASE_NAME, held)
    assert found is not None
    return str(found["spec"]["holderIdentity"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_another_operator_takes_over(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path, number: signal.Signals
) -> None:
    with two_operators(tmp_path, control_plane, admin.namespace) as operators:
        await admin.create(cluster())
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        names = ["first", "second"]
        leader = names.index(await holder(admin))
        operators[leader].program.send(number)

        await admin.wait(LEASE, LEASE_NAME, held_by(names[1 - leader]))
        await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 3}}})
        await admin.wait(STATEFUL_SET, "demo-prefill", replicas(3))


async def test_a_leader_that_hung_writes_nothing_when_it_wakes_up(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with two_operators(tmp_path, control_plane, admin.namespace) as operators:
        await admin.create(cluster())
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        names = ["first", "second"]
        leader = names.index(await holder(admin))
        hung = operators[leader].program
        # An edit that the leader has seen, perhaps half acted on, when it stops.
        await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 3}}})
        hung.send(signal.SIGSTOP)
        await admin.wait(LEASE, LEASE_NAME, held_by(names[1 - leader]))
        await admin.wait(STATEFUL_SET, "demo-prefill", replicas(3))
        await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 2}}})
        await admin.wait(STATEFUL_SET, "demo-prefill", replicas(2))
        before = (await admin.get(STATEFUL_SET, "demo-prefill"))["metadata"]["generation"]

        hung.send(signal.SIGCONT)

        assert hung.wait(seconds=30) == 1, "a process that lost the lease ends"
        after = await admin.get(STATEFUL_SET, "demo-prefill")
        assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (2, before)
        assert (await admin.get(LEASE, LEASE_NAME))["spec"]["holderIdentity"] == names[1 - leader]


async def test_a_write_that_arrives_after_the_lease_was_lost_is_refused(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """The leader has looked at its lease and sent a write, and then nothing of it moves: not it, not its write."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        settings = {"PDC_LEASE_SECONDS": "4", "PDC_IDENTITY": "first"}
        first = await asyncio.to_thread(OperatorProcess, tmp_path / "first", kubeconfig, admin.namespace, settings)
        try:
            await admin.create(cluster())
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
            number = 1 + sum("PATCH statefulsets demo-prefill#" in call for call in proxy.calls)
            proxy.hold = Hold(f"PATCH statefulsets demo-prefill#{number}")
            await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 3}}})
            await asyncio.wait_for(proxy.hold.arrived.wait(), 30)
            first.program.send(signal.SIGSTOP)

            settings = {"PDC_LEASE_SECONDS": "4", "PDC_IDENTITY": "second"}
            second = await asyncio.to_thread(
                OperatorProcess,
                tmp_path / "second",
                chart_identity(control_plane, admin.namespace, tmp_path),
                admin.namespace,
                settings,
            )
            try:
                await admin.wait(STATEFUL_SET, "demo-prefill", replicas(3), seconds=60)
                await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 2}}})
                await admin.wait(STATEFUL_SET, "demo-prefill", replicas(2), seconds=60)
                before = (await admin.get(STATEFUL_SET, "demo-prefill"))["metadata"]["generation"]

                proxy.hold.release.set()

                assert await asyncio.wait_for(proxy.hold.answered, 30) == 409
                first.program.send(signal.SIGCONT)
                assert await asyncio.to_thread(first.program.wait, 30) == 1
                after = await admin.get(STATEFUL_SET, "demo-prefill")
                assert (after["spec"]["replicas"], after["metadata"]["generation"]) == (2, before)
            finally:
                await asyncio.to_thread(second.close)
        finally:
            await asyncio.to_thread(first.close)
            print(first.program.tail())


async def test_a_leader_cut_off_from_its_lease_ends(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        settings = {"PDC_LEASE_SECONDS": "4", "PDC_IDENTITY": "first"}
        first = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, settings)
        try:
            assert await holder(admin) == "first"
            proxy.faults.append(Fault("(GET|PUT) leases", 503, 100_000))
            assert await asyncio.to_thread(first.program.wait, 30) == 1
        finally:
            await asyncio.to_thread(first.close)
            print(first.program.tail())


async def test_the_lease_is_renewed_while_a_first_look_is_not_answered(
    admin: Client, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """Otherwise an operator would lose its lease again and again to an API server that is slow."""
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        proxy.faults.append(Fault("GET (certificates|podmonitors)", Spoiling.SILENCE, 100_000))
        settings = {"PDC_LEASE_SECONDS": "2", "PDC_IDENTITY": "first"}
        first = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, settings)
        renewals: set[str] = set()

        def renewed(found: Manifest | None) -> bool:
            """More often than one lease lasts."""
            renewals.add((found or {}).get("spec", {}).get("renewTime", ""))
            return len(renewals) > 10

        try:
            found = await admin.wait(LEASE, LEASE_NAME, renewed)
            assert found is not None
            assert (found["spec"]["holderIdentity"], found["spec"]["leaseTransitions"]) == ("first", 1)
        finally:
            await asyncio.to_thread(first.close)
            print(first.program.tail())
