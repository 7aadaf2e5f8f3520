"""How often something is looked at again although nothing has happened. Pure.

With many clusters everything at rest is looked at more seldom: rest costs no more than with `FULL_PACE` of them.
"""

from collections.abc import Callable

FULL_PACE = 250
"""So many clusters are looked at as often as is set up; with more of them the period grows with their number."""


def rest(period: float, clusters: int, chance: Callable[[], float]) -> float:
    """Seconds until the next look: from half the period to all of it, so that clusters do not come all at once."""
    return period * max(1.0, clusters / FULL_PACE) * (0.5 + chance() / 2)
