"""The operator killed at a mutating call, before it is sent on or after it was committed: it always converges.

A fixed-seed sample runs by default; `PDC_KILL=all` takes every call of each scenario, in both ways. `PDC_KILL=1/4`
takes the first of four shards of them. In the end everything is as it is when nobody kills anything.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_fixtures import namespace
from cluster_operator import OperatorProcess
from cluster_proxy import Moment, Proxy, Trap, proxied
from kill_calls import CALLS, differences, points
from kill_scenarios import SCENARIOS, footprint, settled

SECONDS = 1500
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(SECONDS)]

SAMPLED = ("PATCH statefulsets", "POST ", "PATCH pdclusters", "DELETE ", "PATCH pods")
"""The sample has one call of each of these kinds, and one of each scenario."""
LEASE = {"PDC_LEASE_SECONDS": "2"}


@dataclass(frozen=True)
class Undisturbed:
    """A scenario in which nobody is killed: how often each call was made, and what there was in the end."""

    made: Counter[str]
    left: dict[str, str]


def chosen() -> list[tuple[str, str]]:
    wanted = os.environ.get("PDC_KILL", "")
    every = [(scenario, name) for scenario in CALLS for name in points(scenario)]
    if wanted == "all":
        return every
    if wanted:
        shard, _, shards = wanted.partition("/")
        return every[int(shard) - 1 :: int(shards)]
    chance = random.Random(20)
    groups = [[point for point in every if point[1].startswith(start)] for start in SAMPLED]
    groups += [[point for point in every if point[0] == scenario] for scenario in CALLS]
    return sorted({chance.choice(group) for group in groups}, key=every.index)


def together(scenario: str) -> pytest.MarkDecorator:
    """One test process has all of a scenario, so that it runs undisturbed only once."""
    return pytest.mark.xdist_group(f"kill {scenario}")


@pytest.fixture(scope="session")
def undisturbed() -> dict[str, Undisturbed]:
    """By scenario; each is run once, by the first test that needs it."""
    return {}


@pytest.mark.parametrize("scenario", [pytest.param(name, marks=together(name)) for name in CALLS])
async def test_the_calls_are_those_that_the_operator_makes(
    node: str, control_plane: ControlPlane, tmp_path: Path, undisturbed: dict[str, Undisturbed], scenario: str
) -> None:
    found = await without_a_kill(control_plane, tmp_path, undisturbed, scenario)
    wrong = differences(scenario, found.made)
    assert not wrong, "kill_calls.py needs:\n" + "\n".join(wrong)


@pytest.mark.parametrize(("scenario", "name"), [pytest.param(*point, marks=together(point[0])) for point in chosen()])
async def test_a_killed_operator_leaves_nothing_half_done(
    node: str,
    control_plane: ControlPlane,
    tmp_path: Path,
    undisturbed: dict[str, Undisturbed],
    scenario: str,
    name: str,
) -> None:
    """In both ways at the same time, in a namespace each: most of a run is waiting."""
    expected = await without_a_kill(control_plane, tmp_path, undisturbed, scenario)
    async with asyncio.TaskGroup() as both:
        for moment in Moment:
            (tmp_path / moment).mkdir()
            both.create_task(killed(control_plane, tmp_path / moment, expected, scenario, name, moment))


async def killed(
    control_plane: ControlPlane, folder: Path, expected: Undisturbed, scenario: str, name: str, moment: Moment
) -> None:
    # Before: its container starts again in its pod, and the lease is still its own. After: another pod waits for it.
    identity = {"PDC_IDENTITY": "operator"} if moment is Moment.BEFORE else {}
    async with namespace(control_plane) as admin:
        async with watched_operator(admin, control_plane, folder, identity) as (proxy, operator):
            trap = Trap(name, moment, lambda: operator.program.send(signal.SIGKILL))
            await run(admin, scenario, proxy, trap)
        assert await footprint(admin) == expected.left
        assert trap.sprung or not name.endswith("#1"), f"no kill: the scenario made no {name}"


async def without_a_kill(
    control_plane: ControlPlane, folder: Path, known: dict[str, Undisturbed], scenario: str
) -> Undisturbed:
    if scenario not in known:
        async with namespace(control_plane) as admin:
            async with watched_operator(admin, control_plane, folder, {}) as (proxy, _):
                await run(admin, scenario, proxy, None)
                made = Counter(proxy.made)
            known[scenario] = Undisturbed(made, await footprint(admin))
    return known[scenario]


async def run(admin: Client, scenario: str, proxy: Proxy, trap: Trap | None) -> None:
    async with SCENARIOS[scenario](admin) as happen:
        proxy.begin(trap)
        await happen()
        await settled(admin)


@contextlib.asynccontextmanager
async def watched_operator(
    admin: Client, control_plane: ControlPlane, folder: Path, identity: dict[str, str]
) -> AsyncIterator[tuple[Proxy, OperatorProcess]]:
    """Behind a proxy; while this lasts, another follows whenever one ends."""
    async with proxied(control_plane, admin.namespace, folder) as (proxy, kubeconfig):
        operator = await asyncio.to_thread(OperatorProcess, folder, kubeconfig, admin.namespace, {**LEASE, **identity})
        kubelet = asyncio.create_task(keep_running(operator))
        try:
            yield proxy, operator
        finally:
            kubelet.cancel()
            await asyncio.to_thread(operator.close)
            print(f"{folder.name}:", *proxy.calls, operator.program.tail(30), sep="\n")


async def keep_running(operator: OperatorProcess) -> None:
    """What a kubelet does: another operator in place of one that ended, for whatever reason."""
    while True:
        await asyncio.to_thread(operator.program.wait, SECONDS)
        operator.start_another()
