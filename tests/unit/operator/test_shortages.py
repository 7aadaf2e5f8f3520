"""Why a StatefulSet gets no pods is asked late, seldom, and only while pods are missing."""

import asyncio
from dataclasses import replace
from typing import Any, cast

from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import Child, WorkloadFacts
from pdcluster_operator.resources import ObjectKey
from pdcluster_operator.shortages import Lack, Shortages, words_of

KEY = ("default", "demo")
EVENTS = [
    {"regarding": {"uid": "a"}, "note": "now", "series": {"lastObservedTime": "2026-01-01T00:00:09Z"}},
    {"regarding": {"uid": "a"}, "note": "before", "eventTime": None, "deprecatedLastTimestamp": "2026-01-01T00:00:05Z"},
]


class FakeKube:
    def __init__(self) -> None:
        self.reads = 0
        self.is_away = False

    async def list(self, *_: Any, **__: Any) -> list[dict[str, Any]]:
        self.reads += 1
        if self.is_away:
            raise KubeError(0, "", "away")
        return EVENTS


def stateful_set(existing: int) -> Child:
    facts = WorkloadFacts(2, 0, 0, 0, existing, "", "", "", settled=True)
    return Child(ObjectKey("StatefulSet", "default", "demo-decode"), "a", "1", "u", "", b"", False, "decode", facts)


class Bench:
    def __init__(self) -> None:
        self.now = 100.0
        self.kube = FakeKube()
        self.shortages = Shortages(cast(Kube, self.kube), 5.0, lambda: self.now)

    def look(self, child: Child, key: tuple[str, str] = KEY) -> Lack:
        return asyncio.run(self.shortages.look(key, [child]))


def test_nothing_is_read_for_a_set_that_has_its_pods_or_is_not_seen_yet() -> None:
    bench = Bench()
    unseen = stateful_set(0)
    assert bench.look(stateful_set(2)) == Lack()
    assert bench.look(replace(unseen, facts=replace(unseen.facts, settled=False))) == Lack()
    assert bench.kube.reads == 0


def test_the_latest_words_are_told_after_a_while() -> None:
    bench = Bench()
    assert bench.look(stateful_set(1)) == Lack(wake_after=5.0)
    bench.now += 5
    assert bench.look(stateful_set(1)) == Lack({"a": "now"}, 5.0)
    assert bench.kube.reads == 1


def test_one_reading_serves_all_clusters_of_a_namespace_for_a_while() -> None:
    bench = Bench()
    other = ("default", "other")
    bench.look(stateful_set(1))
    bench.look(stateful_set(1), other)
    bench.now += 5
    assert bench.look(stateful_set(1)).words == bench.look(stateful_set(1), other).words == {"a": "now"}
    assert bench.kube.reads == 1
    bench.now += 5
    bench.look(stateful_set(1))
    assert bench.kube.reads == 2


def test_a_shortage_that_ended_begins_anew() -> None:
    bench = Bench()
    bench.look(stateful_set(1))
    bench.now += 5
    bench.look(stateful_set(2))
    assert bench.look(stateful_set(1)) == Lack(wake_after=5.0)
    assert bench.kube.reads == 0


def test_an_api_server_that_is_away_leaves_the_words_unknown() -> None:
    bench = Bench()
    bench.kube.is_away = True
    bench.look(stateful_set(1))
    bench.now += 5
    assert bench.look(stateful_set(1)) == Lack({}, 5.0)


def test_the_latest_event_counts() -> None:
    assert words_of(EVENTS) == words_of(reversed(EVENTS)) == {"a": "now"}


def test_many_that_lack_pods_at_once_are_asked_after_later() -> None:
    bench = Bench()
    for number in range(30):
        bench.look(stateful_set(1), ("default", f"other-{number}"))
    assert bench.look(stateful_set(1)) == Lack(wake_after=15.5)
    bench.now += 15
    assert bench.look(stateful_set(1)).words == {}
    assert bench.kube.reads == 0
    bench.now += 0.5
    assert bench.look(stateful_set(1)).words == {"a": "now"}
