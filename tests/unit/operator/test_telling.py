"""What of a status is written at once, and what may wait until there is more of it."""

from copy import deepcopy
from typing import Any

import pytest

from pdcluster_operator.pace import LONGEST_STRETCH
from pdcluster_operator.reconcile.telling import (
    AVAILABLE_SECONDS,
    COUNT_SECONDS,
    CROWD,
    Unsaid,
    patience,
    patience_of_scaler,
)

KEY = ("default", "demo")


def condition(kind: str, status: str, reason: str = "Because", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "currentRevision": "a",
    "targetRevision": "a",
    "summary": {"prefill": "0/2"},
    "roles": [
        {"name": "prefill", "desired": 2, "effective": 2, "draining": 0, "replicas": 0, "ready": 0, "updated": 0}
    ],
    "rollout": {"phase": "Complete", "updated": 0, "total": 2},
    "conditions": [
        condition("Ready", "False", "RouterNotReady"),
        condition("Available", "False", "RouterNotReady"),
        condition("Progressing", "True", "ReplicasUpdating"),
        condition("Degraded", "False", "AsWanted"),
    ],
}


def edited(**edit: object) -> dict[str, Any]:
    """With another value at each path, whose parts are parted by two underscores."""
    status = deepcopy(STATUS)
    for path, value in edit.items():
        *folders, last = [int(part) if part.isdigit() else part for part in path.split("__")]
        place: Any = status
        for folder in folders:
            place = place[folder]
        place[last] = value
    return status


@pytest.mark.parametrize(
    "edit",
    [
        {"roles__0__ready": 1},
        {"roles__0__replicas": 1, "summary__prefill": "0/1"},
        {"roles__0__updated": 2, "rollout__updated": 2},
        {"conditions__2__reason": "ModelLoading", "conditions__2__message": "prefill: 1 of 2 pods are ready"},
        {"conditions__0__reason": "NoReadyPair"},
    ],
)
def test_pods_that_come_are_counted_together(edit: dict[str, object]) -> None:
    assert patience(STATUS, edited(**edit)) == COUNT_SECONDS


def test_the_first_pair_waits_a_moment_for_the_others() -> None:
    assert patience(STATUS, edited(conditions__1__status="True")) == AVAILABLE_SECONDS


@pytest.mark.parametrize(
    "edit",
    [
        {"observedGeneration": 2},
        {"targetRevision": "b"},
        {"rollout__phase": "Rolling"},
        {"roles__0__desired": 3},
        {"roles__0__draining": 1},
        {"conditions__0__status": "True"},
        {"conditions__2__status": "False"},
        {"conditions__3__status": "True"},
        {"conditions__3__reason": "ImageUnavailable"},
        {"conditions__1__reason": "SingleReplicaGap"},
    ],
)
def test_what_somebody_acts_on_is_told_at_once(edit: dict[str, object]) -> None:
    assert patience(STATUS, edited(**edit)) == 0


def test_a_first_status_and_bad_news_do_not_wait() -> None:
    assert patience({}, STATUS) == 0
    assert patience(edited(conditions__1__status="True"), STATUS) == 0


@pytest.mark.parametrize(
    ("edit", "seconds"), [({"replicas": 3}, COUNT_SECONDS), ({"effectiveReplicas": 3}, 0), ({"limitedBy": "Ratio"}, 0)]
)
def test_of_a_scaler_its_limit_is_told_at_once(edit: dict[str, object], seconds: float) -> None:
    before = {"replicas": 2, "readyReplicas": 2, "effectiveReplicas": 2, "limitedBy": "", "selector": "a=b"}
    assert patience_of_scaler(before, {**before, **edit}) == seconds
    assert patience_of_scaler({}, before) == AVAILABLE_SECONDS


def test_news_waits_from_the_first_of_its_kind_on() -> None:
    unsaid = Unsaid()
    assert unsaid.left(KEY, "", 30.0, 10.0) == 30
    assert unsaid.left(KEY, "", 30.0, 12.0) == 28
    assert unsaid.left(KEY, "", 5.0, 20.0) == 5
    assert unsaid.left(("default", "other"), "", 30.0, 12.0) == 30
    unsaid.forget(KEY)
    assert unsaid.left(KEY, "", 30.0, 13.0) == 30


def test_each_status_has_news_of_its_own() -> None:
    unsaid = Unsaid()
    assert unsaid.left(KEY, "", 5.0, 10.0) == 5
    assert unsaid.left(KEY, "demo-decode", 5.0, 12.0) == 5
    unsaid.told(KEY, "demo-decode")
    assert unsaid.left(KEY, "demo-decode", 5.0, 14.0) == 5
    assert unsaid.left(KEY, "", 5.0, 14.0) == 1


def test_a_crowd_that_comes_up_at_once_is_told_of_later_but_not_for_ever_later() -> None:
    unsaid = Unsaid()
    keys = [("default", f"demo-{number}") for number in range(100 * CROWD)]
    for key in keys[:CROWD]:
        assert unsaid.left(key, "", 10.0, 0.0) == 10
    for key in keys[CROWD : 2 * CROWD]:
        unsaid.left(key, "", 10.0, 0.0)
    assert unsaid.left(KEY, "", 10.0, 0.0) == pytest.approx(20, rel=0.1)
    for key in keys:
        unsaid.left(key, "", 10.0, 0.0)
    assert unsaid.left(KEY, "", 10.0, 0.0) == 10 * LONGEST_STRETCH
    for key in keys:
        unsaid.told(key, "")
    assert unsaid.left(KEY, "", 10.0, 0.0) == 10
