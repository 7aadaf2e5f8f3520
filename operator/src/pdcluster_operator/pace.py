"""How often something is looked at again although nothing has happened, and how long it may wait in a crowd. Pure."""

from collections.abc import Callable

FULL_PACE = 250
"""So many clusters are looked at as often as is set up; with more of them the period grows with their number, so that
everything at rest costs no more than with so many."""
LONGEST_STRETCH = 6.0
"""So many times what is usual is the longest that anything waits because of a crowd."""


def rest(period: float, clusters: int, chance: Callable[[], float]) -> float:
    """Seconds until the next look at each of so many clusters."""
    return scatter(period * max(1.0, clusters / FULL_PACE), chance)


def scatter(seconds: float, chance: Callable[[], float]) -> float:
    """From half of it to all of it, so that what began together does not return together; `chance` is in [0, 1)."""
    return seconds * (0.5 + chance() / 2)


def stretched(seconds: float, waiting: int, crowd: int) -> float:
    """In proportion to how many wait, when they are more than a crowd, up to `LONGEST_STRETCH` times."""
    return seconds * min(max(1.0, waiting / crowd), LONGEST_STRETCH)
