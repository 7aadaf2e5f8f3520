"""Kinds that may not be there: a first look at each, and then only while somebody wants them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from played_watch import Played, thing

from pdcluster_operator.cache import Cache
from pdcluster_operator.follow import Change, News
from pdcluster_operator.intake import Intake
from pdcluster_operator.kube import KubeError
from pdcluster_operator.optional import OptionalKinds
from pdcluster_operator.resources import CERTIFICATE, POD_MONITOR

pytestmark = pytest.mark.anyio
KEY = ("n", "demo")
MISSING = Change(News.LOST, error=KubeError(404, "", "404 page not found"))
SILENT = Change(News.LOST, error=KubeError(0, "", "no answer"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Bench:
    def __init__(self) -> None:
        self.played, self.cache = Played(), Cache()
        self.changed: list[tuple[str, str]] = []
        self.kinds = OptionalKinds(Intake(self.played, self.cache, self.changed.append, lambda uid: None), ())

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    task = asyncio.create_task(found.kinds.run())
    yield found
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_turn_waits_for_a_first_look_at_each_kind(bench: Bench) -> None:
    looked = asyncio.create_task(bench.kinds.looked())
    bench.played.list(CERTIFICATE, 5, thing("a", 4))
    await bench.settled()
    assert not looked.done()
    bench.played.told[POD_MONITOR].put_nowait(SILENT)
    async with asyncio.timeout(5):
        await looked
    assert bench.kinds.absent == {"PodMonitor"}, "not known to be there"
    assert bench.changed == [KEY]


async def test_what_is_missing_is_asked_for_only_when_it_is_wanted(bench: Bench) -> None:
    bench.played.told[POD_MONITOR].put_nowait(MISSING)
    await bench.settled()
    assert bench.played.asked[POD_MONITOR] == 1
    bench.kinds.want("Certificate")
    await bench.settled()
    assert bench.played.asked[POD_MONITOR] == 1
    bench.kinds.want("PodMonitor")
    bench.played.list(POD_MONITOR, 6, thing("m", 6))
    await bench.settled()
    assert bench.kinds.absent == {"Certificate"}
    assert [child.key.name for child in bench.cache.view(KEY).children.values()] == ["m"]


async def test_a_kind_that_went_is_absent_until_it_returns_and_what_went_with_it_is_told(bench: Bench) -> None:
    bench.played.list(POD_MONITOR, 6, thing("m", 6))
    bench.played.told[POD_MONITOR].put_nowait(MISSING)
    await bench.settled()
    assert "PodMonitor" in bench.kinds.absent
    told = len(bench.changed)
    bench.kinds.want("PodMonitor")
    bench.played.list(POD_MONITOR, 9)
    await bench.settled()
    assert "PodMonitor" not in bench.kinds.absent
    assert bench.changed[told:] == [KEY]
    assert not bench.cache.view(KEY).children


@pytest.mark.parametrize("status", [0, 429, 500])
async def test_a_kind_that_is_only_out_of_sight_stays(bench: Bench, status: int) -> None:
    bench.played.list(POD_MONITOR, 6)
    bench.played.told[POD_MONITOR].put_nowait(Change(News.LOST, error=KubeError(status, "", "later")))
    await bench.settled()
    assert "PodMonitor" not in bench.kinds.absent
