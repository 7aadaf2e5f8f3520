"""`pdc why`, case by case: each thing that can limit a role is named, in a sentence with its numbers."""

from typing import Any

import pytest
from cli_objects import EXTERNAL, MANAGED, cluster, condition, pod, scaler, workload

from pdcluster_operator.cli.why_answer import Answer, answer
from pdcluster_operator.cli.why_facts import Cause, Facts
from pdcluster_operator.crd.parse import parse

SCALED = {"decode__replicas": None, "decode__scaling": EXTERNAL}
PODS = tuple(pod(f"demo-{role}-{number}", role) for role in ("prefill", "decode") for number in range(2))


def asked(number: int = 2, *, manifest: dict[str, Any] | None = None, **facts: Any) -> Answer:
    """About decode, scaled by somebody, with two pods of each role."""
    manifest = manifest or cluster(**SCALED)
    given = {
        "scalers": {"decode": scaler("decode", number)},
        "stateful_sets": {"prefill": workload("prefill", 2), "decode": workload("decode", 2)},
        "autoscaler": autoscaler(),
        "pods": PODS,
        **facts,
    }
    return answer(Facts("decode", manifest, parse(manifest), **given))


def autoscaler(*conditions: dict[str, Any], current: str | None = "2300m", desired: int | None = 2) -> dict[str, Any]:
    metric = {"metric": {"name": "pdc_kv_cache_usage_ratio"}, "target": {"averageValue": "800m"}}
    told = [{"external": {"current": {"averageValue": current}}}] if current else []
    status = {"conditions": list(conditions), "currentMetrics": told}
    return {
        "metadata": {"name": "demo-decode"},
        "spec": {"minReplicas": 1, "maxReplicas": 4, "metrics": [{"type": "External", "external": metric}]},
        "status": status if desired is None else {**status, "desiredReplicas": desired},
    }


def texts(found: Answer, cause: Cause) -> list[str]:
    return [entry.text for entry in found.findings if entry.cause is cause]


def limits(found: Answer) -> set[Cause]:
    return {entry.cause for entry in found.findings if entry.limits}


def test_nothing_limits_a_role_that_has_what_it_asks_for():
    found = asked()
    assert limits(found) == set()
    assert found.headline == "decode: 2 asked for, 2 given, 2 pods exist, 2 ready"
    assert texts(found, Cause.NOTHING) == ["nothing limits it"]
    assert texts(found, Cause.SCALER) == ["the PDRoleScaler demo-decode asks for 2"]
    assert texts(found, Cause.AUTOSCALER) == ["the HorizontalPodAutoscaler demo-decode wants 2, between 1 and 4"]
    told = ["pdc_kv_cache_usage_ratio is 2.3 for each replica; the target is 0.8"]
    assert texts(found, Cause.METRIC) == told


def test_a_static_role_asks_by_its_spec():
    found = asked(manifest=cluster(), scalers={}, autoscaler=None)
    assert [entry.cause for entry in found.findings] == [Cause.STATIC, Cause.NOTHING]
    assert "spec.decode.replicas asks for 2" in found.findings[0].text


@pytest.mark.parametrize(
    ("number", "cause", "text"),
    [
        (0, Cause.MIN, "spec.decode.scaling.minReplicas is 1: 0 is raised to 1"),
        (9, Cause.MAX, "spec.decode.scaling.maxReplicas is 4: 9 is lowered to 4"),
    ],
)
def test_the_bounds_of_a_role(number, cause, text):
    assert texts(asked(number), cause) == [text]


def test_the_ratio_names_both_sides():
    found = asked(4, manifest=cluster(scalingPolicy={"ratio": {"min": "1", "max": "2"}}, **SCALED))
    words = (
        "spec.scalingPolicy.ratio keeps prefill : decode at least 1 and at most 2: 4 is lowered to 2, beside 2 prefill"
    )
    assert texts(found, Cause.RATIO) == [f"{words} pods"]
    raised = asked(1, manifest=cluster(scalingPolicy={"ratio": {"max": "1"}}, **SCALED))
    assert "at most 1: 1 is raised to 2" in texts(raised, Cause.RATIO)[0]


def test_the_gpu_budget_tells_what_is_held():
    manifest = cluster(decode__gpu={"count": 1}, prefill__gpu={"count": 1}, scalingPolicy={"maxGPUs": 5}, **SCALED)
    (text,) = texts(asked(4, manifest=manifest), Cause.GPU_BUDGET)
    assert "maxGPUs is 5" in text
    assert "hold 4: with 1 for each, decode gets 3 of 4 pods" in text


def test_without_a_scaler_nobody_can_ask():
    found = asked(scalers={}, autoscaler=None)
    assert texts(found, Cause.SCALER_MISSING)
    assert Cause.SCALER_MISSING in limits(found)


def test_without_an_autoscaler_the_number_stays():
    assert "keeps the number that it was last given" in texts(asked(autoscaler=None), Cause.AUTOSCALER_MISSING)[0]
    managed = cluster(decode__replicas=None, decode__scaling=MANAGED)
    assert limits(asked(manifest=managed, autoscaler=None)) == {Cause.AUTOSCALER_MISSING}


@pytest.mark.parametrize(
    ("entry", "cause", "text"),
    [
        (
            condition("ScalingActive", "False", "FailedGetExternalMetric", "no such metric"),
            Cause.AUTOSCALER_BROKEN,
            "does not scale: FailedGetExternalMetric: no such metric",
        ),
        (condition("AbleToScale", "False", "FailedGetScale", "gone"), Cause.AUTOSCALER_BROKEN, "FailedGetScale: gone"),
        (
            condition("ScalingLimited", "True", "TooManyReplicas", "more than the maximum"),
            Cause.AUTOSCALER_LIMITED,
            "is limited: TooManyReplicas: more than the maximum",
        ),
        (
            condition("AbleToScale", "True", "ScaleDownStabilized", "recent recommendations were higher"),
            Cause.AUTOSCALER_LIMITED,
            "waits: ScaleDownStabilized",
        ),
    ],
)
def test_what_holds_an_autoscaler(entry, cause, text):
    found = asked(autoscaler=autoscaler(entry))
    assert text in texts(found, cause)[0]
    assert cause in limits(found)


def test_an_autoscaler_that_has_read_nothing_yet():
    found = asked(autoscaler=autoscaler(current=None, desired=None))
    assert "has not worked out a number yet" in texts(found, Cause.AUTOSCALER)[0]
    assert texts(found, Cause.METRIC) == ["pdc_kv_cache_usage_ratio has not been read yet; the target is 0.8"]
    assert "strange" in texts(asked(autoscaler=autoscaler(current="strange")), Cause.METRIC)[0]


@pytest.mark.parametrize(("phase", "stops"), [("Rolling", False), ("Paused", False), ("Stalled", True)])
def test_a_rollout_is_told_and_limits_when_it_stalls(phase, stops):
    rollout = {"phase": phase, "updated": 1, "total": 4}
    status = {"rollout": rollout, "targetRevision": "bbb", "roles": [{"name": "decode", "limitedBy": "RolloutFloor"}]}
    found = asked(1, manifest=cluster(status, **SCALED))
    assert texts(found, Cause.ROLLOUT) == [f"a rollout is {phase.lower()}: 1 of 4 pods are of bbb"]
    assert "keeps pods that serve until it is over, then shrinks to 1" in texts(found, Cause.ROLLOUT_FLOOR)[0]
    assert (Cause.ROLLOUT in limits(found)) == stops


def test_drains_by_the_operator_and_on_request():
    pods = (
        pod("demo-decode-0", "decode", drain="u", drain_uid="u", drained="2"),
        pod("demo-decode-1", "decode", drain="u"),
        pod("demo-decode-2", "decode", drain_uid="u", drain_deadline="1767225600.000"),
        pod("demo-decode-3", "decode", drain_uid="u", drain_deadline="soon"),
    )
    found = asked(pods=pods)
    assert texts(found, Cause.DRAINING) == [
        "pod demo-decode-2 is draining, until 2026-01-01T00:00:00Z at the latest",
        "pod demo-decode-3 is draining, until an unknown time at the latest",
    ]
    held = texts(found, Cause.HELD)
    assert "demo-decode-0 is drained on request" in held[0]
    assert "`pdc resume demo-decode-0`" in held[0]
    assert "demo-decode-1 is to be drained on request" in held[1]


def test_pods_without_a_node_tell_the_schedulers_reason():
    waiting = pod("demo-decode-1", "decode", ready=False)
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    waiting["status"]["conditions"].append(condition("PodScheduled", "False", "Unschedulable", message))
    found = asked(pods=(PODS[2], waiting))
    assert texts(found, Cause.UNSCHEDULABLE) == [f"pod demo-decode-1 has no node: Unschedulable: {message}"]


def test_pods_that_do_not_run_and_pods_that_load():
    broken, loading = pod("demo-decode-0", "decode", ready=False), pod("demo-decode-1", "decode", ready=False)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    broken["status"]["containerStatuses"] = [{"restartCount": 0, "state": state}]
    loading["status"]["containerStatuses"] = [{"state": {"waiting": {"reason": "ContainerCreating"}}}]
    found = asked(pods=(broken, loading))
    assert texts(found, Cause.NOT_RUNNING) == ["pod demo-decode-0 does not run: ImagePullBackOff: no such image"]
    assert texts(found, Cause.LOADING) == ["pod demo-decode-1 is starting: its model is not loaded yet"]


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("create Pod failed: pods is forbidden: exceeded quota: few, used: pods=4", Cause.QUOTA),
        ("create Pod failed: violates PodSecurity restricted", Cause.POD_REFUSED),
    ],
)
def test_pods_that_the_api_server_refuses(message, cause):
    events = ({"reason": "FailedCreate", "message": "older"}, {"reason": "FailedCreate", "message": message})
    found = asked(4, stateful_sets={"decode": workload("decode", 4)}, events=events)
    assert texts(found, cause) == [f"the API server refuses a pod: {message}"]
    assert not texts(found, Cause.MISSING_PODS)


def test_pods_that_are_not_made_yet():
    found = asked(4, stateful_sets={"decode": workload("decode", 4)})
    assert texts(found, Cause.MISSING_PODS) == ["2 of 4 pods do not exist yet"]


def test_an_operator_that_does_not_act():
    behind = cluster({"observedGeneration": 2}, paused=True, **SCALED)
    assert {Cause.PAUSED, Cause.OPERATOR_BEHIND} <= limits(asked(manifest=behind))
    broken = cluster({"conditions": [condition("Degraded", "True", "NameConflict", "taken")]}, **SCALED)
    assert texts(asked(manifest=broken), Cause.INVALID) == ["the PDCluster is degraded: NameConflict: taken"]
    other = cluster({"conditions": [condition("Degraded", "True", "InsufficientCapacity", "no GPU")]}, **SCALED)
    assert not texts(asked(manifest=other), Cause.INVALID)
