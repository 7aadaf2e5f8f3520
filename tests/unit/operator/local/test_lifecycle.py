"""When a dead pod starts again."""

import signal

import pytest

from pdcluster_operator.local.lifecycle import (
    LONGEST_BACK_OFF,
    STABLE_AFTER,
    TRANSITIONS,
    GiveUp,
    History,
    PodState,
    Restart,
    after_exit,
    back_off,
)

KILLED = -signal.SIGKILL


def test_the_first_restart_is_at_once_and_later_ones_wait_longer():
    history, delays = History().ready(0.0), []
    for _ in range(8):
        history, verdict = after_exit(history, KILLED, "", now=1.0)
        delays.append(verdict.delay)
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_BACK_OFF == 2.0


def test_a_stable_pod_starts_over():
    history = History(deaths=7, was_ready=True).ready(100.0)
    after, verdict = after_exit(history, KILLED, "", now=100.0 + STABLE_AFTER)
    assert verdict == Restart(0.0)
    assert after.deaths == 1


def test_readiness_before_the_present_start_does_not_count_as_stable():
    history, _ = after_exit(History(deaths=3).ready(0.0), KILLED, "", now=5.0)
    _, verdict = after_exit(history, KILLED, "", now=500.0)
    assert verdict == Restart(back_off(5))


def test_a_pod_that_was_ready_is_always_started_again():
    history = History().ready(0.0)
    for _ in range(50):
        history, verdict = after_exit(history, 1, "out of memory", now=0.5)
        assert isinstance(verdict, Restart)


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [(1, "tensor missing", "tensor missing"), (2, "", "exit status 2"), (0, "", "exit status 0")],
)
def test_a_first_start_that_fails_by_itself_is_final(status, reason, shown):
    _, verdict = after_exit(History(), status, reason, now=0.0)
    assert isinstance(verdict, GiveUp)
    assert shown in verdict.reason


def test_a_first_start_that_is_killed_is_tried_again_but_not_for_ever():
    history, verdict, tries = History(), Restart(0.0), 0
    while isinstance(verdict, Restart):
        history, verdict = after_exit(history, KILLED, "", now=0.0)
        tries += 1
    assert tries == 3
    assert "SIGKILL" in verdict.reason


def test_every_state_has_transitions_and_gone_is_the_end():
    assert set(TRANSITIONS) == set(PodState)
    assert TRANSITIONS[PodState.GONE] == set()
