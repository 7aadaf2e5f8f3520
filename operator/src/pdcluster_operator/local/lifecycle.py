"""When a pod that died starts again. Pure: the clock is an argument."""

import signal
from dataclasses import dataclass, replace
from enum import StrEnum


class PodState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    STOPPING = "stopping"
    GONE = "gone"


TRANSITIONS = {
    PodState.STARTING: {PodState.READY, PodState.WAITING, PodState.STOPPING, PodState.GONE},
    PodState.READY: {PodState.WAITING, PodState.STOPPING},
    PodState.WAITING: {PodState.STARTING, PodState.GONE},
    PodState.STOPPING: {PodState.GONE},
    PodState.GONE: set(),
}
FIRST_BACK_OFF, LONGEST_BACK_OFF = 0.25, 2.0
STABLE_AFTER = 10.0
"""Seconds of readiness after which earlier deaths are forgotten."""
START_ATTEMPTS = 3
"""Of a pod that was never ready and is killed from outside; one that ends by itself gets one."""


@dataclass(frozen=True, slots=True)
class History:
    """Of one pod. `deaths` since it was last stable."""

    deaths: int = 0
    was_ready: bool = False
    ready_since: float | None = None

    def ready(self, now: float) -> "History":
        return replace(self, was_ready=True, ready_since=now)


@dataclass(frozen=True, slots=True)
class Restart:
    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: str


def after_exit(history: History, status: int, reason: str, now: float) -> tuple[History, Restart | GiveUp]:
    """What follows an exit with `status` (negative: a signal) and the `reason` the child gave, if any.

    A pod that was ready once is always started again: at once, then after a back-off that doubles.
    """
    stable = history.ready_since is not None and now - history.ready_since >= STABLE_AFTER
    deaths = 1 if stable else history.deaths + 1
    after = History(deaths, history.was_ready)
    if not history.was_ready and (reason or status >= 0 or deaths >= START_ATTEMPTS):
        return after, GiveUp(reason or describe(status))
    return after, Restart(back_off(deaths))


def back_off(deaths: int) -> float:
    """Seconds before the start that follows the death with this number, counted from 1."""
    return 0.0 if deaths <= 1 else min(FIRST_BACK_OFF * 2.0 ** min(deaths - 2, 10), LONGEST_BACK_OFF)


def describe(status: int) -> str:
    if status >= 0:
        return f"it ended with exit status {status}"
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was killed by signal {-status}"
