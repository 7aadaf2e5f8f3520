"""Who may reach the pods of operator and adapter, and whom these may reach, by the chart's own NetworkPolicies."""

from typing import Any

import pytest
import yaml
from cluster_control_plane import ControlPlane
from cluster_identity import CHART
from network_reach import OUTSIDE, End, may_reach, pod

from pdcluster_operator.desired import labels
from pdcluster_operator.plan.site import GRPC_PORT, HTTP_PORT, METRICS_PORT

SYSTEM = "pdcluster-system"
RELEASE = {"app.kubernetes.io/instance": "pdcluster"}
OPERATOR = pod(SYSTEM, {"app.kubernetes.io/name": "pdcluster-operator", **RELEASE})
ADAPTER = pod(SYSTEM, {"app.kubernetes.io/name": "pdcluster-metrics-adapter", **RELEASE})
PREFILL = pod("team", labels.of_pod("demo", "prefill", "1"))
UNWATCHED = pod("elsewhere", labels.of_pod("demo", "prefill", "1"))
PROMETHEUS = pod("monitoring", {"app": "prometheus"})
STRANGER = pod("elsewhere", {"app": "stranger"})
DNS = pod("kube-system", {"k8s-app": "kube-dns"})

ALLOWED = {
    "operator to the API server's service": (OPERATOR, OUTSIDE, 443, "TCP"),
    "operator to the API server": (OPERATOR, OUTSIDE, 6443, "TCP"),
    "operator to Admin of a worker": (OPERATOR, PREFILL, GRPC_PORT, "TCP"),
    "operator to what a worker tells": (OPERATOR, PREFILL, METRICS_PORT, "TCP"),
    "operator to DNS": (OPERATOR, DNS, 53, "UDP"),
    "scraper to operator": (PROMETHEUS, OPERATOR, 8000, "TCP"),
    "probe of the operator": (OUTSIDE, OPERATOR, 8000, "TCP"),
    "adapter to a worker": (ADAPTER, PREFILL, METRICS_PORT, "TCP"),
    "adapter to the API server": (ADAPTER, OUTSIDE, 6443, "TCP"),
    "API server to adapter": (OUTSIDE, ADAPTER, 8443, "TCP"),
    "scraper to adapter": (PROMETHEUS, ADAPTER, 8000, "TCP"),
}
DENIED = {
    "operator to anybody": (OPERATOR, STRANGER, HTTP_PORT, "TCP"),
    "operator to what is not watched": (OPERATOR, UNWATCHED, GRPC_PORT, "TCP"),
    "operator to elsewhere": (OPERATOR, OUTSIDE, 80, "TCP"),
    "adapter to Admin of a worker": (ADAPTER, PREFILL, GRPC_PORT, "TCP"),
    "adapter to anybody": (ADAPTER, STRANGER, METRICS_PORT, "TCP"),
    "anybody to another port of the operator": (STRANGER, OPERATOR, 8080, "TCP"),
}


@pytest.fixture(scope="module")
def policies(control_plane: ControlPlane) -> list[dict[str, Any]]:
    return rendered(control_plane, "metricsAdapter.enabled=true", "watchNamespaces={team}")


def rendered(plane: ControlPlane, *settings: str) -> list[dict[str, Any]]:
    flags = [f"--set={setting}" for setting in settings]
    made = plane.helm("template", "pdcluster", str(CHART), "--namespace", SYSTEM, *flags)
    assert made.returncode == 0, made.stderr
    return [entry for entry in yaml.safe_load_all(made.stdout) if entry and entry["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize("flow", ALLOWED.values(), ids=ALLOWED.keys())
def test_what_must_be_reached_is(policies: list[dict[str, Any]], flow: tuple[End, End, int, str]) -> None:
    assert may_reach(policies, *flow)


@pytest.mark.parametrize("flow", DENIED.values(), ids=DENIED.keys())
def test_nothing_else_is(policies: list[dict[str, Any]], flow: tuple[End, End, int, str]) -> None:
    assert not may_reach(policies, *flow)


def test_another_port_of_the_api_server_and_none_at_all(control_plane: ControlPlane) -> None:
    other = rendered(control_plane, "networkPolicy.apiServerPorts={8443}")
    assert may_reach(other, OPERATOR, OUTSIDE, 8443)
    assert not may_reach(other, OPERATOR, OUTSIDE, 6443)
    assert may_reach(other, OPERATOR, UNWATCHED, GRPC_PORT), "all namespaces are watched"
    assert rendered(control_plane, "networkPolicy.enabled=false") == []
