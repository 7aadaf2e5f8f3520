"""Pods and children come and go in the cache as their kinds' watches tell, broken ones too."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from pdcluster_operator.cache import Cache
from pdcluster_operator.child_watch import BLIND_SECONDS, ChildWatch
from pdcluster_operator.desired import labels
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.follow import Change, Follower, News, Scope
from pdcluster_operator.resources import CHILDREN, POD, POD_DISRUPTION_BUDGET, Resource

pytestmark = pytest.mark.anyio
KEY = ("n", "demo")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Played(Follower):
    """Tells of each kind what the test has put into its queue."""

    def __init__(self) -> None:
        self.told: dict[Resource, asyncio.Queue[Change]] = {kind: asyncio.Queue() for kind in (POD, *CHILDREN)}

    async def changes(self, scope: Scope) -> AsyncIterator[Change]:
        while True:
            yield await self.told[scope.resource].get()

    def list(self, kind: Resource, version: int, *manifests: dict[str, Any]) -> None:
        complete = Change(News.COMPLETE, {"metadata": {"resourceVersion": str(version)}})
        for change in (Change(News.LISTING), *(Change(News.CHANGED, entry) for entry in manifests), complete):
            self.told[kind].put_nowait(change)


def thing(name: str, version: int) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": str(version)}
    created = {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {labels.CLUSTER: "demo"}}
    return {"metadata": {**metadata, **created}}


class Bench:
    """A watch under test, and what it has told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.played, self.cache = Played(), Cache()
        self.changed: list[tuple[str, str]] = []
        self.gone: list[str] = []
        self.watch = ChildWatch(
            self.played, self.cache, self.changed.append, self.gone.append, (), clock=lambda: self.now
        )

    @property
    def names(self) -> set[str]:
        view = self.cache.view(KEY)
        return set(view.pods) | {child.key.name for child in view.children.values()}

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)


async def running(play: Callable[[Bench], Awaitable[None]]) -> None:
    bench = Bench()
    task = asyncio.create_task(bench.watch.run())
    try:
        await play(bench)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_no_turn_before_every_kind_is_listed() -> None:
    async def play(bench: Bench) -> None:
        for kind in CHILDREN:
            bench.played.list(kind, 5)
        bench.played.list(POD_DISRUPTION_BUDGET, 6, thing("late", 6))
        await bench.until(lambda: bench.names == {"late"})
        listed = asyncio.create_task(bench.watch.listed())
        await asyncio.sleep(0)
        assert not listed.done()
        bench.played.list(POD, 7)
        async with asyncio.timeout(5):
            await listed

    await running(play)


async def test_what_went_while_a_watch_was_broken_is_forgotten_and_told() -> None:
    async def play(bench: Bench) -> None:
        bench.played.list(POD, 5, thing("a-0", 4), thing("a-1", 5))
        await bench.until(lambda: bench.names == {"a-0", "a-1"})
        told = len(bench.changed)
        bench.played.told[POD].put_nowait(Change(News.LOST, reason="no route"))
        bench.played.list(POD, 9, thing("a-1", 5))
        await bench.until(lambda: bench.names == {"a-1"})
        assert bench.gone == ["uid-a-0"]
        assert bench.changed[told:] == [KEY], "what has not changed is not told again"
        bench.played.told[POD].put_nowait(Change(News.GONE, thing("a-1", 10)))
        await bench.until(lambda: not bench.names)
        assert bench.gone == ["uid-a-0", "uid-a-1"]

    await running(play)


async def test_a_kind_that_stays_out_of_sight_ends_the_watch_and_is_named() -> None:
    bench = Bench()
    lost = bench.played.told[POD_DISRUPTION_BUDGET]
    task = asyncio.create_task(bench.watch.run())
    lost.put_nowait(Change(News.LOST, reason="may not"))
    await bench.until(lost.empty)
    bench.now = BLIND_SECONDS
    bench.played.list(POD_DISRUPTION_BUDGET, 5)
    await bench.until(lost.empty)
    lost.put_nowait(Change(News.LOST, reason="may not"))
    await bench.until(lost.empty)
    assert not task.done(), "it was seen in between"
    bench.now = 2 * BLIND_SECONDS
    lost.put_nowait(Change(News.LOST, reason="may not"))
    with pytest.raises(ExceptionGroup) as found:
        await asyncio.wait_for(task, 5)
    (error,) = found.value.exceptions
    assert isinstance(error, OperatorError)
    assert str(error) == "poddisruptionbudgets can be neither listed nor watched: may not"
