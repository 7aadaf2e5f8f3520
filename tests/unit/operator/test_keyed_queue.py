"""The keyed queue: one turn at a time for a key, no lost wake-up, failures that wait and do not hold up others."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from pdcluster_operator.keyed_queue import KeyedQueue

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@contextlib.asynccontextmanager
async def running(work: Callable[[str], Awaitable[float | None]], failed: list[Exception] | None = None):
    errors = [] if failed is None else failed
    queue = KeyedQueue(work, lambda _, error: errors.append(error), debounce=0, random_source=lambda: 0.0)
    task = asyncio.create_task(queue.run(workers=2))
    yield queue
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_adding_twice_before_the_turn_gives_one_turn() -> None:
    seen: list[str] = []
    done = asyncio.Event()

    async def work(key: str) -> None:
        seen.append(key)
        if key == "last":
            done.set()

    async with running(work) as queue:
        for _ in range(5):
            queue.add("a")
        queue.add("last", 0.01)
        await asyncio.wait_for(done.wait(), 5)
    assert seen == ["a", "last"]


async def test_a_key_added_during_its_turn_has_another_one_afterwards_and_never_two_at_once() -> None:
    active, turns, done = 0, 0, asyncio.Event()

    async def work(key: str) -> None:
        nonlocal active, turns
        active, turns = active + 1, turns + 1
        assert active == 1
        if turns < 3:
            queue.add(key)
        await asyncio.sleep(0)
        active -= 1
        if turns == 3:
            done.set()

    async with running(work) as queue:
        queue.add("a")
        await asyncio.wait_for(done.wait(), 5)
        assert len(queue) == 0


async def test_a_failing_key_is_tried_again_and_holds_up_no_other() -> None:
    errors: list[Exception] = []
    tries, other = 0, asyncio.Event()
    done = asyncio.Event()

    async def work(key: str) -> None:
        nonlocal tries
        if key == "good":
            other.set()
            return
        tries += 1
        if tries < 2:
            raise ValueError("once")
        done.set()

    async with running(work, errors) as queue:
        queue.add("bad")
        queue.add("good")
        await asyncio.wait_for(other.wait(), 5)
        assert not done.is_set()
        await asyncio.wait_for(done.wait(), 5)
    assert [str(error) for error in errors] == ["once"]


async def test_a_turn_may_ask_for_the_next_and_an_event_brings_it_forward() -> None:
    turns, second = 0, asyncio.Event()

    async def work(key: str) -> float | None:
        nonlocal turns
        turns += 1
        if turns == 2:
            second.set()
        return 3600

    async with running(work) as queue:
        queue.add("a")
        queue.add("marker", 0.01)
        await asyncio.sleep(0)
        queue.add("a")
        await asyncio.wait_for(second.wait(), 5)
        assert len(queue) >= 1


async def test_events_bring_a_failed_key_forward_but_never_below_what_the_server_asked_for() -> None:
    turns: list[float] = []
    clock = asyncio.get_running_loop().time
    done = asyncio.Event()

    async def work(key: str) -> None:
        turns.append(clock())
        if len(turns) == 1:
            queue.add(key)
            raise ValueError("come back later")
        done.set()

    queue = KeyedQueue[str](work, lambda *_: 0.3, debounce=0, random_source=lambda: 0.0)
    task = asyncio.create_task(queue.run(workers=2))
    queue.add("a")
    while not turns:
        await asyncio.sleep(0)
    for _ in range(100):
        queue.add("a")
    await asyncio.wait_for(done.wait(), 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(turns) == 2
    assert turns[1] - turns[0] >= 0.3
