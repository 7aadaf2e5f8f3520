"""Which pods count, and how the picture follows the watch."""

from typing import Any

import pytest

from pdcluster_operator.scaling.adapter.selector import Wanted
from pdcluster_operator.scaling.adapter.workers import Group, Workers, serving, worker_of

DECODE = Group("team", "demo", "decode")
ASKED = Wanted(frozenset({"demo"}), frozenset({"decode"}))


def pod(name: str = "demo-decode-0", **edit: Any) -> dict[str, Any]:
    labels = {"pdcluster.dev/cluster": "demo", "pdcluster.dev/role": "decode", "pdcluster.dev/counted": "true"}
    port = {"name": "metrics", "containerPort": edit.get("port", 8000)}
    ready = {"type": "Ready", "status": edit.get("ready", "True")}
    return {
        "metadata": {
            "namespace": edit.get("namespace", "team"),
            "name": name,
            "uid": f"uid-{name}",
            "labels": {key: value for key, value in labels.items() if key not in edit.get("without", ())},
            **edit.get("metadata", {}),
        },
        "spec": {"containers": [{"name": "sidecar"}, {"name": "worker", "ports": [port]}]},
        "status": {"podIP": edit.get("address", "10.0.0.7"), "conditions": [ready]},
    }


def test_a_ready_pod_counts_and_is_read_at_its_named_port() -> None:
    worker = worker_of(pod(port=9100))
    assert (worker.group, worker.serves, worker.url) == (DECODE, True, "http://10.0.0.7:9100/metrics")


def test_a_v6_address_is_written_in_brackets() -> None:
    assert worker_of(pod(address="fd00::7")).url == "http://[fd00::7]:8000/metrics"


@pytest.mark.parametrize(
    "edit",
    [
        {"ready": "False"},
        {"without": ["pdcluster.dev/counted"]},
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"address": ""},
    ],
    ids=["not ready", "draining", "leaving", "without an address"],
)
def test_a_pod_that_does_not_serve_does_not_count(edit: dict[str, Any]) -> None:
    assert serving([worker_of(pod(**edit))]) == []


def test_groups_are_of_one_namespace() -> None:
    workers = Workers()
    workers.put(worker_of(pod()))
    workers.put(worker_of(pod("other-decode-0", namespace="elsewhere")))
    assert [worker.name for worker in workers.groups("team", ASKED)[DECODE]] == ["demo-decode-0"]
    assert list(workers.groups("nowhere", ASKED)) == []


def test_a_new_listing_replaces_the_old_one_only_when_it_is_complete() -> None:
    workers = Workers()
    for name in ("demo-decode-0", "demo-decode-1"):
        workers.put(worker_of(pod(name)))

    workers.begin()
    workers.put(worker_of(pod("demo-decode-1")))
    assert len(workers) == 2, "a sum during a listing must not be smaller"
    assert workers.complete(now=5.0) == ["uid-demo-decode-0"]
    assert len(workers) == 1


def test_a_pod_that_is_gone_leaves_nothing() -> None:
    workers = Workers()
    workers.put(worker_of(pod()))
    workers.remove("uid-demo-decode-0")
    workers.remove("uid-demo-decode-0")
    assert list(workers.groups("team", ASKED)) == []


def test_a_lost_watch_is_lost_since_it_broke_first() -> None:
    workers = Workers()
    workers.complete(1.0)
    workers.lost(2.0)
    workers.lost(9.0)
    assert workers.lost_since == 2.0
    workers.complete(10.0)
    assert workers.lost_since is None
