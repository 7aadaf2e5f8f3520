"""Conditions on a pretended cluster: what each says, and that an unchanged cluster has an unchanged status."""

from dataclasses import replace
from typing import Any

import pytest
from cel_table import edited
from pretend_cluster import PretendCluster

from pdcluster_operator.events import transitions
from pdcluster_operator.reconcile.situation import Trouble
from pdcluster_operator.status import broken_status, status_of


def pretend(**edit: object) -> PretendCluster:
    return PretendCluster(edited({key.replace("__", "."): value for key, value in edit.items()})["spec"])


def told(cluster: PretendCluster, previous: dict[str, Any] | None = None) -> dict[str, Any]:
    return status_of(cluster.situation(), cluster.turn(), previous or {})


def condition(status: dict[str, Any], kind: str) -> tuple[str, str]:
    return next((entry["status"], entry["reason"]) for entry in status["conditions"] if entry["type"] == kind)


def test_a_cluster_in_the_making_is_not_ready_and_says_why() -> None:
    status = told(pretend())
    assert condition(status, "Ready")[0] == "False"
    assert condition(status, "Available") == ("False", "RouterNotReady")
    assert condition(status, "Progressing") == ("True", "ReplicasUpdating")


def test_a_settled_cluster_is_ready_and_its_status_does_not_change() -> None:
    cluster = pretend()
    cluster.settle()
    cluster.linked = {pod["metadata"]["uid"]: True for pod in cluster.pods.values()}
    first = told(cluster)
    cluster.now += 1000

    assert told(cluster, first) == first
    kinds = ["Ready", "Available", "Progressing", "Degraded", "RevisionCoherent", "TransportReady"]
    kinds += ["ScalingActive", "RatioSatisfied"]
    assert {kind: condition(first, kind)[0] for kind in kinds} == {
        **dict.fromkeys(kinds, "True"),
        "Progressing": "False",
        "Degraded": "False",
    }


def test_a_rollout_shows_and_ready_is_false_while_it_lasts() -> None:
    cluster = pretend()
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 7})
    status = told(cluster)
    assert condition(status, "RevisionCoherent") == ("False", "RollingOut")
    assert condition(status, "Ready")[0] == "False"
    assert condition(status, "Available")[0] == "True"
    assert status["rollout"]["phase"] == "Rolling"
    assert status["currentRevision"] != status["targetRevision"]


def test_the_only_pair_being_replaced_has_a_reason_of_its_own() -> None:
    cluster = pretend(prefill__replicas=1, decode__replicas=1)
    cluster.settle()
    cluster.edit(engine={"prepareThreads": 7})
    reasons = set()
    for _ in range(12):
        reasons.add(condition(told(cluster), "Available")[1])
        cluster.tick()
        cluster.now += 1
    assert "SingleReplicaGap" in reasons


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        ("ImagePullBackOff", "ImageUnavailable"),
        ("CrashLoopBackOff", "PodsCrashing"),
        ("CreateContainerConfigError", "ConfigurationMissing"),
        ("RunContainerError", "PodsNotRunning"),
    ],
)
def test_pods_that_do_not_run_make_it_degraded(waiting: str, reason: str) -> None:
    cluster = pretend()
    cluster.settle()
    state = {"state": {"waiting": {"reason": waiting}}}
    cluster.pods["demo-decode-1"]["status"] = {"podIP": "127.1.0.1", "containerStatuses": [state]}
    status = told(cluster)
    assert condition(status, "Degraded") == ("True", reason)
    assert condition(status, "Ready")[0] == "False"


def test_a_pod_that_finds_no_node_means_too_little_capacity() -> None:
    cluster = pretend()
    cluster.settle()
    unscheduled = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    cluster.pods["demo-decode-1"]["status"] = {"conditions": unscheduled}
    assert condition(told(cluster), "Degraded") == ("True", "InsufficientCapacity")


def test_why_it_is_not_ready_is_told_in_the_pods_own_words() -> None:
    cluster = pretend()
    cluster.settle()
    state = {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image example.invalid/w"}}}
    cluster.pods["demo-decode-1"]["status"] = {"podIP": "127.1.0.1", "containerStatuses": [state]}
    ready = next(entry for entry in told(cluster)["conditions"] if entry["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ImageUnavailable")
    assert ready["message"] == "demo-decode-1: ErrImagePull: no such image example.invalid/w"


def test_what_else_is_wrong_is_told_after_the_first_trouble() -> None:
    cluster = pretend()
    cluster.settle()
    state = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    cluster.pods["demo-decode-1"]["status"] = {"podIP": "127.1.0.1", "containerStatuses": [state]}
    refused = Trouble("QuotaExceeded", "Service demo-decode: exceeded quota")
    decision = replace(cluster.turn(), troubles=(refused, refused))

    status = status_of(cluster.situation(), decision, {})

    degraded = next(entry for entry in status["conditions"] if entry["type"] == "Degraded")
    assert degraded["reason"] == "QuotaExceeded"
    assert degraded["message"] == f"{refused.message}; PodsCrashing: demo-decode-1: CrashLoopBackOff"


def test_many_pods_with_one_trouble_are_counted() -> None:
    cluster = pretend(decode__replicas=6)
    cluster.settle()
    state = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    for number in range(5):
        cluster.pods[f"demo-decode-{number}"]["status"] = {"podIP": "127.1.0.1", "containerStatuses": [state]}
    degraded = next(entry for entry in told(cluster)["conditions"] if entry["type"] == "Degraded")
    assert degraded["message"].endswith("demo-decode-2: CrashLoopBackOff and 2 more")


def test_a_revision_that_never_comes_up_stalls_and_an_undo_ends_that() -> None:
    cluster = pretend()
    cluster.settle()
    status = told(cluster)
    cluster.now += 10_000
    cluster.workloads.stuck = {"demo-prefill-1"}
    cluster.edit(engine={"prepareThreads": 7})
    for _ in range(10):
        status = told(cluster, status)
        assert condition(status, "Progressing") == ("True", "RollingOut"), "the cluster is old, the rollout is not"
        cluster.tick()

    cluster.now += 1801
    status = told(cluster, status)
    assert condition(status, "Progressing") == ("False", "RolloutStalled")
    assert condition(status, "Degraded") == ("True", "ProgressDeadlineExceeded")
    assert condition(status, "Ready") == ("False", "RollingOut")
    assert condition(status, "Available")[0] == "True"
    message = next(entry["message"] for entry in status["conditions"] if entry["type"] == "Progressing")
    assert message == "nothing has changed for 1800 s; not ready: demo-prefill-1"

    cluster.edit(engine=None)
    status = told(cluster, status)
    assert condition(status, "Progressing") == ("True", "RollingOut")
    cluster.workloads.stuck = set()
    cluster.settle()
    assert condition(told(cluster, status), "Ready") == ("True", "AllReady")


def test_pods_that_never_come_up_in_the_first_place_are_given_up_too() -> None:
    cluster = pretend()
    cluster.workloads.stuck = {"demo-decode-0"}
    for _ in range(10):
        status = told(cluster)
        cluster.tick()
    assert condition(status, "Progressing") == ("True", "ModelLoading")
    wake = cluster.turn().wake_after
    assert wake is not None
    cluster.now += wake
    status = told(cluster, status)
    assert condition(status, "Progressing") == ("False", "ProgressDeadlineExceeded")
    assert condition(status, "Ready")[0] == "False"


def test_a_transition_keeps_its_time_until_the_status_changes() -> None:
    cluster = pretend()
    first = told(cluster)
    cluster.now += 5
    second = told(cluster, first)
    since = {entry["type"]: entry["lastTransitionTime"] for entry in first["conditions"]}
    assert {entry["type"]: entry["lastTransitionTime"] for entry in second["conditions"]} == since
    cluster.settle()
    third = told(cluster, second)
    assert next(e["lastTransitionTime"] for e in third["conditions"] if e["type"] == "Ready") != since["Ready"]


def test_there_is_an_event_for_a_change_and_none_for_a_beginning() -> None:
    cluster = pretend()
    first = told(cluster)
    cluster.settle()
    whole = {"apiVersion": "v", "kind": "PDCluster", "metadata": {"name": "demo", "namespace": "n", "uid": "u"}}
    assert transitions({**whole, "status": first}, [], 1.0) == []
    events = transitions({**whole, "status": told(cluster, first)}, first["conditions"], 1.0)
    assert [(event["type"], event["note"]) for event in events] == [
        ("Normal", "Ready is True: Available is True, Progressing is False")
    ]


def test_what_ends_has_an_event_for_each_condition() -> None:
    cluster = pretend()
    cluster.settle()
    first = told(cluster)
    cluster.edit(engine={"prepareThreads": 7})
    whole = {"apiVersion": "v", "kind": "PDCluster", "metadata": {"name": "demo", "namespace": "n", "uid": "u"}}
    events = transitions({**whole, "status": told(cluster, first)}, first["conditions"], 1.0)
    assert {(event["type"], event["note"].partition(":")[0]) for event in events} == {
        ("Warning", "Ready is False"),
        ("Normal", "Progressing is True"),
        ("Warning", "RevisionCoherent is False"),
    }
    assert len({event["metadata"]["name"] for event in events}) == len(events)


def test_a_broken_spec_keeps_what_was_told_before() -> None:
    trouble = Trouble("InvalidSpec", "spec.model: is required")
    manifest = {"metadata": {"generation": 4}}
    status = broken_status(manifest, trouble, {"currentRevision": "abc", "conditions": []}, 0.0)
    assert status["currentRevision"] == "abc"
    assert status["observedGeneration"] == 4
    assert condition(status, "Degraded") == ("True", "InvalidSpec")


def test_the_transport_is_not_ready_while_a_worker_reaches_no_peer() -> None:
    cluster = pretend()
    cluster.settle()
    assert condition(told(cluster), "TransportReady") == ("Unknown", "NotTold")

    uids = {name: pod["metadata"]["uid"] for name, pod in cluster.pods.items()}
    cluster.linked = {uids["demo-prefill-0"]: True, uids["demo-decode-1"]: False}
    status = told(cluster)
    assert condition(status, "TransportReady") == ("False", "NoReachablePeer")
    message = next(entry["message"] for entry in status["conditions"] if entry["type"] == "TransportReady")
    assert "demo-decode-1" in message
    assert "demo-prefill-0" not in message
    assert condition(status, "Ready")[0] == "True", "requests go around it"

    cluster.linked[uids["demo-decode-1"]] = True
    assert condition(told(cluster), "TransportReady") == ("True", "TCP")


def test_shared_memory_that_a_cluster_does_not_have_is_told() -> None:
    cluster = pretend(transport={"kv": {"protocol": "IPC"}})
    cluster.settle()
    assert condition(told(cluster), "TransportReady") == ("True", "IPCNotAvailable")
    cluster.linked = {pod["metadata"]["uid"]: False for pod in cluster.pods.values()}
    assert condition(told(cluster), "TransportReady") == ("False", "NoReachablePeer")
