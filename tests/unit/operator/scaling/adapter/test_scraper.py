"""Reading workers: on demand, once for all who ask, again when it failed, and never without end."""

import asyncio
from collections.abc import Mapping

import pytest

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.scaling.adapter import scraper as module
from pdcluster_operator.scaling.adapter.metrics import AdapterMetrics
from pdcluster_operator.scaling.adapter.scraper import ATTEMPTS, REUSE_SECONDS, Scraper
from pdcluster_operator.scaling.adapter.workers import Group, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Fleet:
    """Workers that tell how often they were asked; `failures` answers come first, and `gate` holds all back."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.at_once = 0
        self.most_at_once = 0
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.scraper = Scraper(self.fetch, AdapterMetrics(), lambda: self.now)

    async def fetch(self, url: str) -> Mapping[str, float]:
        self.asked += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if self.failures:
            self.failures -= 1
            raise OperatorError("broken")
        return {"pdc_requests_running": 1.0}


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def worker(number: int = 0) -> Worker:
    return Worker(f"uid-{number}", f"w-{number}", Group("n", "c", "decode"), "10.0.0.1", 8000, True)


async def test_a_young_reading_is_not_repeated(fleet: Fleet) -> None:
    await fleet.scraper.refresh([worker()])
    fleet.now += REUSE_SECONDS / 2
    await fleet.scraper.refresh([worker()])
    assert fleet.asked == 1
    fleet.now += REUSE_SECONDS
    await fleet.scraper.refresh([worker()])
    assert fleet.asked == 2


async def test_two_who_ask_at_once_share_one_reading(fleet: Fleet) -> None:
    fleet.gate.clear()
    asking = [asyncio.create_task(fleet.scraper.refresh([worker()])) for _ in range(2)]
    await asyncio.sleep(0)
    fleet.gate.set()
    await asyncio.gather(*asking)
    assert fleet.asked == 1


async def test_a_failed_reading_is_tried_again_at_once(fleet: Fleet) -> None:
    fleet.failures = ATTEMPTS - 1
    assert "uid-0" in await fleet.scraper.refresh([worker()])


async def test_a_worker_that_keeps_failing_keeps_its_last_reading_as_old_as_it_is(fleet: Fleet) -> None:
    await fleet.scraper.refresh([worker()])
    fleet.now, fleet.failures = 110.0, ATTEMPTS
    readings = await fleet.scraper.refresh([worker()])
    assert readings["uid-0"].at == 100.0
    assert fleet.asked == 1 + ATTEMPTS


async def test_no_more_than_so_many_workers_are_read_at_once(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 3)
    scraper = Scraper(fleet.fetch, AdapterMetrics(), lambda: fleet.now)
    readings = await scraper.refresh([worker(number) for number in range(20)])
    assert len(readings) == 20
    assert fleet.most_at_once <= 3


async def test_a_worker_that_hangs_does_not_hold_up_the_question(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUESTION_SECONDS", 0.01)
    fleet.gate.clear()
    assert await fleet.scraper.refresh([worker()]) == {}
    await fleet.scraper.close()
    assert fleet.at_once == 0


async def test_a_pod_that_is_gone_leaves_neither_reading_nor_task(fleet: Fleet) -> None:
    await fleet.scraper.refresh([worker()])
    fleet.now, _ = 200.0, fleet.gate.clear()
    asking = asyncio.create_task(fleet.scraper.refresh([worker()]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    fleet.scraper.forget("uid-0")
    assert await asking == {}
    assert fleet.at_once == 0
