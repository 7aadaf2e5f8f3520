"""The autoscaler of a Managed role: what it asks for is what the adapter answers, and its pace is the user's."""

from decimal import Decimal
from typing import Any

import pytest
from cel_table import edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.kubernetes_autoscaler import DEFAULTS, autoscaler, reason_of
from pdcluster_operator.scaling.adapter.exposition import GAUGES
from pdcluster_operator.scaling.adapter.selector import Wanted
from pdcluster_operator.scaling.adapter.selector import parse as parse_selector

MANAGED = {"mode": "Managed", "minReplicas": 2, "maxReplicas": 5}


def made(role: str = "decode", **scaling: Any) -> dict[str, Any]:
    manifest = edited({f"{role}.replicas": None, f"{role}.scaling": {**MANAGED, **scaling}})
    cluster = parse({**manifest, "metadata": {"name": "demo", "namespace": "team", "uid": "u", "generation": 1}})
    return autoscaler(cluster, role, cluster.spec.roles()[role].scaling)["spec"]


def test_it_drives_the_scaler_within_its_bounds() -> None:
    spec = made()
    assert spec["scaleTargetRef"] == {
        "apiVersion": "pdcluster.dev/v1alpha1",
        "kind": "PDRoleScaler",
        "name": "demo-decode",
    }
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 5)


@pytest.mark.parametrize("role", ["prefill", "decode"])
def test_its_metrics_are_what_the_adapter_serves(role: str) -> None:
    for entry in made(role)["metrics"]:
        metric, target = entry["external"]["metric"], entry["external"]["target"]
        assert entry["type"] == "External"
        assert metric["name"] in GAUGES
        assert target["type"] == "AverageValue"
        selector = ",".join(f"{key}={value}" for key, value in metric["selector"]["matchLabels"].items())
        assert parse_selector(selector) == Wanted(frozenset({"demo"}), frozenset({role}))


def test_every_default_metric_is_served() -> None:
    assert {name for targets in DEFAULTS.values() for name in targets} <= set(GAUGES)


def test_targets_of_the_user_stand_in_for_the_defaults() -> None:
    found = made(targets={"runningPerReplica": 64})["metrics"]
    assert [entry["external"]["metric"]["name"] for entry in found] == ["pdc_requests_running"]
    assert Decimal(found[0]["external"]["target"]["averageValue"]) == 64


def test_by_default_it_grows_at_once_and_shrinks_one_by_one() -> None:
    behavior = made()["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] <= 30
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }


def test_its_pace_is_the_users() -> None:
    wanted = {"scaleUpStabilizationSeconds": 0, "scaleDownStabilizationSeconds": 900, "scaleDownPeriodSeconds": 60}
    behavior = made(behavior=wanted)["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 900
    assert behavior["scaleDown"]["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("FailedGetExternalMetric", "NoMetric"),
        ("FailedGetPodsMetric", "NoMetric"),
        ("FailedGetScale", "FailedGetScale"),
        ("ScalingDisabled", "ScalingDisabled"),
        ("", ""),
    ],
)
def test_a_metric_that_cannot_be_read_has_a_reason_of_its_own(told: str, reason: str) -> None:
    assert reason_of(told) == reason
