"""A mark that the API server took is known at once, whatever the watch tells and when."""

import asyncio
import copy
from typing import Any, cast

import pytest

from pdcluster_operator.cache import Cache
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired import labels
from pdcluster_operator.drainer import Drainer
from pdcluster_operator.kube import Kube
from pdcluster_operator.observe import Pod

NOW = 1000.0
LISTED: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {
        "name": "demo-decode-1",
        "namespace": "n",
        "uid": "u",
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {labels.CLUSTER: "demo", labels.ROLE: "decode", labels.COUNTED: "true"},
    },
    "status": {"podIP": "127.0.0.1"},
}


class FakeKube:
    """Takes merge patches of the one pod, each a version further."""

    def __init__(self) -> None:
        self.pod = copy.deepcopy(LISTED)
        self.writes = 0

    async def merge(self, _kind: object, _namespace: str, _name: str, patch: dict[str, Any]) -> dict[str, Any]:
        self.writes += 1
        metadata = self.pod["metadata"]
        for part in ("annotations", "labels"):
            merged = {**metadata.get(part, {}), **patch["metadata"].get(part, {})}
            metadata[part] = {key: value for key, value in merged.items() if value is not None}
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return copy.deepcopy(self.pod)


class FakeMetadata:
    namespace = "n"
    name = "demo"


class FakeCluster:
    metadata = FakeMetadata()


def drained(cache: Cache, *events: dict[str, Any]) -> FakeKube:
    """A drain is begun in two turns one after the other, with these events of the watch in between."""
    kube = FakeKube()
    drainer = Drainer(cast(Kube, kube), cast(Any, None), lambda key: None, cache.refresh_pod)

    async def run() -> None:
        for turn in range(2):
            pod = known(cache)
            if pod is not None:
                await drainer.start(cast(PDCluster, FakeCluster()), pod, NOW - 1, NOW + turn)
            for event in events:
                cache.put("Pod", event)
        await drainer.close()

    asyncio.run(run())
    return kube


def known(cache: Cache) -> Pod | None:
    return cache.view(("n", "demo")).pods.get("demo-decode-1")


@pytest.mark.parametrize("events", [(), (LISTED,)])
def test_a_pod_is_marked_once_even_before_the_watch_tells_of_it(events: tuple[dict[str, Any], ...]) -> None:
    cache = Cache()
    cache.put("Pod", LISTED)
    kube = drained(cache, *events)
    pod = known(cache)
    assert kube.writes == 1
    assert pod is not None
    assert (pod.drain_uid, pod.counted, pod.version) == ("u", False, 6)


def test_an_answer_brings_no_pod_back_that_is_gone() -> None:
    cache = Cache()
    cache.put("Pod", LISTED)
    cache.remove("Pod", LISTED)
    cache.refresh_pod(LISTED)
    assert known(cache) is None


def test_an_answer_about_a_pod_of_the_name_before_is_not_taken_for_the_new_one() -> None:
    cache = Cache()
    cache.put("Pod", {**LISTED, "metadata": {**LISTED["metadata"], "uid": "new"}})
    cache.refresh_pod(LISTED)
    pod = known(cache)
    assert pod is not None
    assert pod.uid == "new"
