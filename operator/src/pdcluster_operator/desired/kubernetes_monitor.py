"""The PodMonitor of a PDCluster: what makes the Prometheus operator scrape its pods. Pure."""

from typing import Any

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired import labels

Manifest = dict[str, Any]


def pod_monitor(cluster: PDCluster) -> Manifest:
    """All pods by their port `metrics`; the series carry the role and the revision."""
    wanted, name = cluster.spec.observability.pod_monitor, cluster.metadata.name
    endpoint = {"port": "metrics", "path": "/metrics", "interval": wanted.interval}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name, "labels": dict(wanted.labels or {})},
        "spec": {
            "selector": {"matchLabels": {labels.CLUSTER: name}},
            "podTargetLabels": [labels.CLUSTER, labels.ROLE, labels.REVISION],
            "podMetricsEndpoints": [endpoint],
        },
    }
