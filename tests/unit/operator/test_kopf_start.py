"""Objects that wait for one another at kopf's start are woken once, not once for each."""

import asyncio
from collections.abc import Iterable

from kopf._core.reactor import orchestration

from pdcluster_operator.kopf_start import QuietToggleSet, quicken


async def started(objects: int) -> tuple[int, bool]:
    """How often somebody looked at the whole set until all objects were let go, and whether it was on then."""
    looks = 0

    def every(states: Iterable[bool]) -> bool:
        nonlocal looks
        looks += 1
        return all(states)

    toggles = QuietToggleSet(every)
    listing = await toggles.make_toggle(name="listing")
    own = [await toggles.make_toggle() for _ in range(objects)]

    async def work(number: int) -> None:
        await toggles.drop_toggle(own[number])
        await toggles.wait_for(True)

    workers = [asyncio.create_task(work(number)) for number in range(objects)]
    await asyncio.sleep(0)
    assert not any(worker.done() for worker in workers)
    await toggles.drop_toggle(listing)
    async with asyncio.timeout(20):
        await asyncio.gather(*workers)
    return looks, toggles.is_on()


def test_looks_grow_with_the_number_of_objects() -> None:
    few, many = asyncio.run(started(100)), asyncio.run(started(1000))
    assert few[1]
    assert many[1]
    assert many[0] <= 11 * few[0]


def test_kopf_makes_such_sets() -> None:
    quicken()
    assert orchestration.aiotoggles.ToggleSet is QuietToggleSet
