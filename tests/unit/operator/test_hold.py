"""Pods that are drained on request: emptied once for each process, left alone then, and resumed only by a person."""

import pytest
from cel_table import edited
from pretend_cluster import PretendCluster

from pdcluster_operator.desired import labels
from pdcluster_operator.observe import pod_of
from pdcluster_operator.reconcile.hold import is_empty
from pdcluster_operator.reconcile.situation import NoteDrained, RolloutPhase, StartDrain, StopDrain
from pdcluster_operator.status import status_of

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 8}


def pretend(**edit: object) -> PretendCluster:
    cluster = PretendCluster(edited({key.replace("__", "."): value for key, value in edit.items()})["spec"])
    cluster.settle()
    return cluster


def annotations(cluster: PretendCluster, name: str) -> dict[str, str]:
    return cluster.pods[name]["metadata"].setdefault("annotations", {})


def ask(cluster: PretendCluster, name: str) -> None:
    annotations(cluster, name)[labels.DRAIN] = cluster.pods[name]["metadata"]["uid"]


def resume(cluster: PretendCluster, name: str) -> None:
    annotations(cluster, name).pop(labels.DRAIN, None)


def test_a_request_drains_the_pod_and_then_nothing_is_written() -> None:
    cluster = pretend()
    ask(cluster, "demo-decode-0")

    first = cluster.turn()
    assert [action.pod.name for action in first.actions if isinstance(action, StartDrain)] == ["demo-decode-0"]
    decision = cluster.settle()

    assert annotations(cluster, "demo-decode-0")[labels.DRAINED] == "0"
    assert labels.COUNTED not in cluster.pods["demo-decode-0"]["metadata"]["labels"]
    assert (decision.roles["decode"].draining, decision.roles["decode"].held) == (1, 1)
    for _ in range(5):
        assert cluster.turn().actions == ()


def test_the_cluster_is_ready_beside_a_pod_that_is_out_of_service_and_not_while_it_drains() -> None:
    cluster = pretend()
    cluster.drain_seconds = None
    ask(cluster, "demo-decode-0")
    cluster.turn()
    progressing = next(
        entry
        for entry in status_of(cluster.situation(), cluster.turn(), {})["conditions"]
        if entry["type"] == "Progressing"
    )
    assert (progressing["status"], progressing["message"]) == ("True", "decode: 1 pods are draining")
    cluster.drain_seconds = 0
    cluster.settle()
    told = status_of(cluster.situation(), cluster.turn(), {})["conditions"]
    assert {entry["type"]: entry["status"] for entry in told}["Ready"] == "True"


def test_a_pod_is_noted_as_drained_only_when_it_is_empty_or_out_of_time() -> None:
    cluster = pretend(drain__timeoutSeconds=60)
    cluster.drain_seconds = None
    ask(cluster, "demo-prefill-1")
    for _ in range(3):
        assert not any(isinstance(action, NoteDrained) for action in cluster.turn().actions)
    assert cluster.turn().wake_after == pytest.approx(60)
    cluster.now += 61
    assert any(isinstance(action, NoteDrained) for action in cluster.turn().actions)


def test_a_resume_puts_it_back_and_nothing_else_does() -> None:
    cluster = pretend(decode__replicas=None, decode__scaling=EXTERNAL)
    cluster.scale("decode", 2)
    cluster.settle()
    ask(cluster, "demo-decode-1")
    cluster.settle()
    cluster.scale("decode", 3)
    cluster.settle()
    assert annotations(cluster, "demo-decode-1")[labels.DRAIN_UID]

    resume(cluster, "demo-decode-1")
    decision = cluster.turn()
    assert [action.pod.name for action in decision.actions if isinstance(action, StopDrain)] == ["demo-decode-1"]
    cluster.settle()
    assert labels.DRAINED not in annotations(cluster, "demo-decode-1")
    assert cluster.pods["demo-decode-1"]["metadata"]["labels"][labels.COUNTED] == "true"


def test_a_restarted_worker_is_drained_again() -> None:
    cluster = pretend()
    ask(cluster, "demo-decode-0")
    cluster.settle()
    pod = cluster.pods["demo-decode-0"]
    pod["status"]["containerStatuses"] = [{"restartCount": 1}]
    ready = pod["status"]["conditions"]
    pod["status"]["conditions"] = []
    assert not any(isinstance(action, StartDrain) for action in cluster.turn().actions), "it takes nothing yet"

    pod["status"]["conditions"] = ready
    (again,) = [action for action in cluster.turn().actions if isinstance(action, StartDrain)]
    assert again.afresh
    cluster.settle()
    assert annotations(cluster, "demo-decode-0")[labels.DRAINED] == "1"


def test_a_request_is_for_one_pod_and_not_for_its_successor() -> None:
    cluster = pretend()
    annotations(cluster, "demo-decode-0")[labels.DRAIN] = "another"
    assert cluster.turn().actions == ()
    ask(cluster, "demo-decode-1")
    cluster.settle()
    cluster.pods.pop("demo-decode-1")
    cluster.settle()
    assert labels.DRAIN not in annotations(cluster, "demo-decode-1")
    assert cluster.pods["demo-decode-1"]["metadata"]["labels"][labels.COUNTED] == "true"


def test_a_pause_of_the_operator_holds_requests_too() -> None:
    cluster = pretend()
    cluster.edit(paused=True)
    ask(cluster, "demo-decode-0")
    assert cluster.turn().actions == ()


def test_a_rollout_replaces_a_pod_that_is_out_of_service() -> None:
    cluster = pretend()
    ask(cluster, "demo-decode-0")
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 6})
    decision = cluster.settle()
    assert decision.rollout.phase is RolloutPhase.COMPLETE
    assert cluster.undrained == []
    assert labels.DRAIN not in annotations(cluster, "demo-decode-0")


def test_a_rollout_waits_for_a_new_pod_that_is_out_of_service() -> None:
    cluster = pretend()
    cluster.edit(engine={"prepareThreads": 6})
    target = None
    for _ in range(60):
        target = cluster.turn().rollout.target
        cluster.tick()
        if target in cluster.revisions("decode"):
            break
    name = next(
        pod["metadata"]["name"]
        for pod in cluster.pods.values()
        if pod["metadata"]["labels"].get(labels.REVISION) == target and "decode" in pod["metadata"]["name"]
    )
    cluster.turn()
    cluster.tick()
    ask(cluster, name)
    old = [revision for role in ("prefill", "decode") for revision in cluster.revisions(role) if revision != target]
    for _ in range(30):
        cluster.turn()
        cluster.tick()
    left = [revision for role in ("prefill", "decode") for revision in cluster.revisions(role) if revision != target]
    assert len(old) - len(left) <= 1, "a pod whose drain was over may still have gone"
    assert left

    resume(cluster, name)
    assert cluster.settle(120).rollout.phase is RolloutPhase.COMPLETE


def test_the_facts_of_a_pod() -> None:
    cluster = pretend()
    ask(cluster, "demo-decode-0")
    cluster.settle()
    pod = pod_of(cluster.pods["demo-decode-0"])
    assert (pod.is_held, pod.serves, pod.emptied, pod.restarts) == (True, False, "0", 0)
    assert is_empty(pod)
