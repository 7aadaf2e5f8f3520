"""Damage that the operator cannot undo has a reason of its own: held objects, refused pods, calls that fail."""

from typing import Any

import pytest
from cel_table import edited
from pretend_cluster import PretendCluster

from pdcluster_operator.kube import KubeError
from pdcluster_operator.observe import pod_of
from pdcluster_operator.reconcile.damage import deletion_blocked
from pdcluster_operator.reconcile.decide import decide
from pdcluster_operator.refusals import reason_of
from pdcluster_operator.resources import ObjectKey

HOLD = "example.invalid/hold"


def settled() -> PretendCluster:
    cluster = PretendCluster(edited({})["spec"])
    cluster.settle()
    return cluster


def troubles(cluster: PretendCluster) -> list[tuple[str, str]]:
    return [(entry.reason, entry.message) for entry in decide(cluster.situation()).troubles]


def metadata(cluster: PretendCluster, kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.objects[ObjectKey(kind, "default", name)]["metadata"]
    return found


def test_a_child_that_goes_by_itself_is_no_damage() -> None:
    cluster = settled()
    metadata(cluster, "Service", "demo-decode").update(finalizers=[HOLD])
    metadata(cluster, "Service", "demo-prefill").update(deletionTimestamp="2026-01-01T00:00:00Z")
    metadata(cluster, "Service", "demo-prefill").update(finalizers=["foregroundDeletion"])
    assert troubles(cluster) == []


def test_a_child_and_a_pod_that_somebody_holds_are_named_with_the_finalizer() -> None:
    cluster = settled()
    held = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [HOLD]}
    metadata(cluster, "Service", "demo-decode").update(held)
    cluster.pods["demo-prefill-1"]["metadata"] |= held
    message = (
        f"is deleted, and waits for finalizers of others: Pod demo-prefill-1 ({HOLD}); Service demo-decode ({HOLD})"
    )
    assert troubles(cluster) == [("FinalizerStuck", message)]


def test_a_cluster_that_somebody_holds_says_who() -> None:
    found = deletion_blocked({"metadata": {"finalizers": ["foregroundDeletion", HOLD]}})
    assert found is not None
    assert (found.reason, HOLD in found.message) == ("DeletionBlocked", True)
    assert deletion_blocked({"metadata": {"finalizers": ["foregroundDeletion"]}}) is None
    assert deletion_blocked({"metadata": {}}) is None


def test_what_a_deployment_says_of_its_pods_is_told() -> None:
    cluster = settled()
    words = 'pods "demo-router-x" is forbidden: exceeded quota: small'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": words}
    cluster.objects[ObjectKey("Deployment", "default", "demo-router")]["status"] = {"conditions": [failure]}
    assert troubles(cluster) == [("QuotaExceeded", f"Deployment demo-router gets no pods: {words}")]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ('pods "a" is forbidden: exceeded quota: q, requested: pods=1', "QuotaExceeded"),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest": hostPath volumes', "PodSecurityRefused"),
        ("pods is forbidden: maximum cpu usage per Container is 1, but limit is 2", "LimitRangeViolated"),
        ("pods is forbidden: minimum memory usage per Pod is 1Gi. No limit is specified", "LimitRangeViolated"),
        ("is forbidden: cpu max limit to request ratio per Container is 1, but is 2", "LimitRangeViolated"),
        ("unable to create new content in namespace a because it is being terminated", "NamespaceTerminating"),
        ("admission webhook denied the request", "Otherwise"),
    ],
)
def test_the_api_servers_words_have_reasons(words: str, reason: str) -> None:
    assert reason_of(words, "Otherwise") == reason


def test_a_field_of_the_wrong_type_is_a_refusal_for_good() -> None:
    words = (
        "failed to create typed patch object (a/b; apps/v1, Kind=StatefulSet): .spec.x: field not declared in schema"
    )
    assert KubeError(500, "", words).is_permanent
    assert not KubeError(500, "", "the webhook does not answer").is_permanent


@pytest.mark.parametrize("written", ["soon", "nan", "inf", ""])
def test_a_drain_mark_that_is_no_number_is_a_deadline_that_has_passed(written: str) -> None:
    notes = {"pdcluster.dev/drain-deadline": written}
    stamp = "2026-01-01T00:00:00Z"
    found = pod_of({"metadata": {"name": "a-0", "uid": "u", "creationTimestamp": stamp, "annotations": notes}})
    assert found.drain_deadline == 0.0


def test_an_edited_revision_is_put_right_with_the_number_that_it_had() -> None:
    cluster = settled()
    key = next(key for key in cluster.objects if key.kind == "ControllerRevision" and "-workers-" in key.name)
    found, entry = cluster.objects[key], cluster.objects[key]["metadata"]["managedFields"][0]
    number, found["revision"] = found["revision"], 77
    del entry["fieldsV1"]["f:revision"]
    cluster.settle()
    assert cluster.objects[key]["revision"] == number


def test_a_scaler_whose_role_was_relabelled_is_looked_at_again() -> None:
    scaling = {"mode": "External", "maxReplicas": 4}
    cluster = PretendCluster(edited({"decode.replicas": None, "decode.scaling": scaling})["spec"])
    cluster.settle()
    metadata(cluster, "PDRoleScaler", "demo-decode")["labels"]["pdcluster.dev/role"] = "mine"
    kinds = [type(action).__name__ for action in decide(cluster.situation()).actions]
    assert kinds == ["Create"]
