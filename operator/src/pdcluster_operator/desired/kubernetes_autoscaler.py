"""The autoscaler of a Managed role: sums of the workers' gauges, spread over its replicas. Pure."""

from typing import Any

from pdcluster_operator.crd.cluster import API_VERSION, PDCluster
from pdcluster_operator.crd.scaling import Behavior, Scaling, Targets
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import group_name

Manifest = dict[str, Any]

QUEUE_SECONDS = "pdc_prefill_queue_seconds"
KV_USAGE = "pdc_kv_cache_usage_ratio"
RUNNING = "pdc_requests_running"
DEFAULTS = {
    "prefill": {QUEUE_SECONDS: "1.5"},
    "decode": {KV_USAGE: "0.8"},
    "mixed": {QUEUE_SECONDS: "1.5", KV_USAGE: "0.8"},
}
"""Prefill is a rate, decode an occupancy; a role that does both has both, and the larger answer counts."""


NO_METRIC = "NoMetric"
"""Whoever serves the metric refuses, or nobody does."""


def autoscaler(cluster: PDCluster, role: str, scaling: Scaling) -> Manifest:
    """A HorizontalPodAutoscaler on the role's PDRoleScaler."""
    name = group_name(cluster.metadata.name, role)
    metrics = [_metric(cluster, role, metric, target) for metric, target in targets(role, scaling.targets).items()]
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "labels": {labels.ROLE: role}},
        "spec": {
            "scaleTargetRef": {"apiVersion": API_VERSION, "kind": "PDRoleScaler", "name": name},
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": metrics,
            "behavior": behavior(scaling.behavior or Behavior()),
        },
    }


def behavior(wanted: Behavior) -> Manifest:
    """Up at once, by as many pods again or by four; down one by one, since a pod that goes must drain first."""
    return {
        "scaleUp": {
            "stabilizationWindowSeconds": wanted.scale_up_stabilization_seconds,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 60},
                {"type": "Pods", "value": 4, "periodSeconds": 60},
            ],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": wanted.scale_down_stabilization_seconds,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": wanted.scale_down_period_seconds}],
        },
    }


def targets(role: str, wanted: Targets | None) -> dict[str, str]:
    """Metric to target per replica: the user's own, else the role's defaults."""
    if wanted is None:
        return DEFAULTS[role]
    named = {
        QUEUE_SECONDS: wanted.queue_seconds,
        KV_USAGE: wanted.kv_usage,
        RUNNING: None if wanted.running_per_replica is None else str(wanted.running_per_replica),
    }
    return {metric: value for metric, value in named.items() if value is not None} or DEFAULTS[role]


def reason_of(told: str) -> str:
    """The autoscaler's reason for not scaling, in the words of a PDCluster's condition."""
    return NO_METRIC if told.startswith("FailedGet") and told.endswith("Metric") else told


def _metric(cluster: PDCluster, role: str, metric: str, target: str) -> Manifest:
    selector = {"matchLabels": {"cluster": cluster.metadata.name, "role": role}}
    return {
        "type": "External",
        "external": {
            "metric": {"name": metric, "selector": selector},
            "target": {"type": "AverageValue", "averageValue": target},
        },
    }
