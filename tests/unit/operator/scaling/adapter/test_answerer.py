"""Whole questions over a fleet that the test plays."""

from collections.abc import Mapping

import pytest

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.scaling.adapter.answerer import Answerer
from pdcluster_operator.scaling.adapter.answers import OLDEST_SECONDS, RefusedError
from pdcluster_operator.scaling.adapter.metrics import AdapterMetrics
from pdcluster_operator.scaling.adapter.scraper import Scraper
from pdcluster_operator.scaling.adapter.workers import Group, Worker, Workers

pytestmark = pytest.mark.anyio
RUNNING, DEMO = "pdc_requests_running", "cluster=demo,role=decode"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class World:
    """`told`: address to running requests; None: it cannot be read."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: dict[str, float | None] = {}
        self.asked: list[str] = []
        self.workers = Workers()
        self.workers.complete(self.now)
        scraper = Scraper(self.fetch, AdapterMetrics(), lambda: self.now)
        self.answerer = Answerer(self.workers, scraper, lambda: self.now)

    def put(self, number: int, running: float | None, *, serves: bool = True, namespace: str = "team") -> None:
        address, group = f"10.0.0.{number}", Group(namespace, "demo", "decode")
        self.told[address] = running
        self.workers.put(Worker(f"uid-{number}", f"demo-decode-{number}", group, address, 8000, serves))

    async def fetch(self, url: str) -> Mapping[str, float]:
        address = url.removeprefix("http://").partition(":")[0]
        self.asked.append(address)
        value = self.told[address]
        if value is None:
            raise OperatorError("silent")
        return {RUNNING: value}

    async def value(self, selector: str = DEMO) -> str:
        answer = await self.answerer.answer("team", RUNNING, selector)
        return str(answer["items"][0]["value"])


@pytest.fixture
def world() -> World:
    return World()


async def refusal(world: World, metric: str = RUNNING, selector: str = DEMO) -> tuple[int, str]:
    with pytest.raises(RefusedError) as refused:
        await world.answerer.answer("team", metric, selector)
    return refused.value.status, str(refused.value)


async def test_a_sum_is_over_those_that_serve_and_only_they_are_read(world: World) -> None:
    world.put(1, 3)
    world.put(2, 4)
    world.put(3, 100, serves=False)
    world.put(4, 100, namespace="elsewhere")
    assert await world.value() == "7"
    assert sorted(world.asked) == ["10.0.0.1", "10.0.0.2"]


async def test_a_reading_bridges_15_seconds_and_no_longer(world: World) -> None:
    world.put(1, 3)
    world.put(2, 4)
    assert await world.value() == "7"
    world.told["10.0.0.2"] = None
    world.now = OLDEST_SECONDS
    assert await world.value() == "7"
    world.now += 1.0
    assert await refusal(world) == (503, "not read for 15 s: demo-decode-2")


async def test_one_that_starts_to_drain_leaves_the_sum_at_once(world: World) -> None:
    world.put(1, 3)
    world.put(2, 4)
    assert await world.value() == "7"
    world.put(2, None, serves=False)
    assert await world.value() == "3"


async def test_what_is_not_known_is_refused(world: World) -> None:
    world.put(1, 3)
    assert (await refusal(world, metric="pdc_steps"))[0] == 404
    assert (await refusal(world, selector="cluster=other,role=decode"))[0] == 404
    assert (await refusal(world, selector="cluster=demo"))[0] == 400


async def test_without_ready_workers_there_is_no_number(world: World) -> None:
    world.put(1, 3, serves=False)
    assert await refusal(world) == (503, "no decode worker of team/demo is ready")


async def test_without_the_watch_there_is_no_number_for_long(world: World) -> None:
    world.put(1, 3)
    world.workers.lost(world.now)
    assert await world.value() == "3"
    world.now = OLDEST_SECONDS + 1.0
    assert (await refusal(world))[0] == 503
    world.workers.begin()
    world.put(1, 3)
    world.workers.complete(world.now)
    assert await world.value() == "3"


async def test_before_the_first_listing_there_is_no_number(world: World) -> None:
    fresh = Answerer(Workers(), Scraper(world.fetch, AdapterMetrics()), lambda: 0.0)
    with pytest.raises(RefusedError, match="the pods are not known"):
        await fresh.answer("team", RUNNING, DEMO)
