"""Pods and children come and go in the cache as their kinds' watches tell, broken ones too."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from played_watch import Played, thing

from pdcluster_operator.cache import Cache
from pdcluster_operator.child_watch import BLIND_SECONDS, ChildWatch
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.follow import Change, News
from pdcluster_operator.intake import Intake
from pdcluster_operator.kube import KubeError
from pdcluster_operator.resources import CHILDREN, POD, POD_DISRUPTION_BUDGET

pytestmark = pytest.mark.anyio
KEY = ("n", "demo")
REFUSED = Change(News.LOST, error=KubeError(403, "Forbidden", "may not"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Bench:
    """A watch under test, and what it has told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.played, self.cache = Played(), Cache()
        self.changed: list[tuple[str, str]] = []
        self.gone: list[str] = []
        intake = Intake(self.played, self.cache, self.changed.append, self.gone.append)
        self.watch = ChildWatch(intake, (), clock=lambda: self.now)

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
        bench.played.told[POD].put_nowait(Change(News.LOST, error=KubeError(0, "", "no route")))
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
    lost.put_nowait(REFUSED)
    await bench.until(lost.empty)
    bench.now = BLIND_SECONDS
    bench.played.list(POD_DISRUPTION_BUDGET, 5)
    await bench.until(lost.empty)
    lost.put_nowait(REFUSED)
    await bench.until(lost.empty)
    assert not task.done(), "it was seen in between"
    bench.now = 2 * BLIND_SECONDS
    lost.put_nowait(REFUSED)
    with pytest.raises(ExceptionGroup) as found:
        await asyncio.wait_for(task, 5)
    (error,) = found.value.exceptions
    assert isinstance(error, OperatorError)
    assert str(error) == "poddisruptionbudgets can be neither listed nor watched: Forbidden: may not"
