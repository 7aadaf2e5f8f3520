"""The files for other metrics systems name what exists, and ask for what the metrics adapter serves."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from pdcluster_operator.crd.scaling import Behavior
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_autoscaler import DEFAULTS, behavior
from pdcluster_operator.metrics import Metrics
from pdcluster_operator.scaling.adapter.exposition import GAUGES
from pdcluster_operator.scaling.adapter.metrics import AdapterMetrics

ROOT = Path(__file__).parents[4]
MONITORING = ROOT / "manifests" / "monitoring"
WORKER = {*GAUGES, "pdc_draining", "pdc_kv_peers"}
SERIES = re.compile(r"\bpdc_[a-z_]+")


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((MONITORING / name).read_text()))


def told() -> set[str]:
    """Every series of operator, adapter and, as far as it is asked for here, worker."""
    text = "".join(generate_latest(entry.registry).decode() for entry in (Metrics(), AdapterMetrics()))
    return WORKER | set(SERIES.findall(text))


def test_the_workers_own_gauges_are_what_is_asked_for() -> None:
    source = (ROOT / "worker" / "src" / "pdcluster_worker" / "metrics.py").read_text()
    for name in WORKER:
        assert f'("{name.removeprefix("pdc_")}", ' in source, name


@pytest.mark.parametrize("name", ["keda-scaledobjects.yaml", "alerts.yaml"])
def test_queries_name_series_that_exist(name: str) -> None:
    assert set(SERIES.findall((MONITORING / name).read_text())) <= told()


def test_prometheus_adapter_serves_the_same_metrics() -> None:
    (values,) = documents("prometheus-adapter-values.yaml")
    (rule,) = values["rules"]["external"]
    pattern = re.search(r'__name__=~"([^"]+)"', rule["seriesQuery"])
    assert pattern is not None
    assert all(re.match(pattern[1], name) for name in GAUGES)


def test_keda_asks_for_the_defaults_of_a_managed_role() -> None:
    for manifest in documents("keda-scaledobjects.yaml"):
        role = manifest["spec"]["scaleTargetRef"]["name"].removeprefix("demo-")
        (trigger,) = manifest["spec"]["triggers"]
        (metric,) = DEFAULTS[role]
        assert f'{metric}{{namespace="default",cluster="demo",role="{role}"}}' in trigger["metadata"]["query"]
        assert trigger["metadata"]["threshold"] == DEFAULTS[role][metric]
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert manifest["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == behavior(Behavior())


def test_the_pod_monitor_picks_the_operators_pods() -> None:
    (monitor,) = documents("pod-monitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"] == {labels.MANAGED_BY: labels.OPERATOR}
    made = {
        entry["targetLabel"]
        for entry in monitor["spec"]["podMetricsEndpoints"][0]["relabelings"]
        if "targetLabel" in entry
    }
    assert {"cluster", "role"} <= made
