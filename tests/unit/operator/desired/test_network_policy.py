"""Who may reach whom: required and forbidden flows of the rendered policies, by the rules of the API."""

from typing import Any

import pytest
from network_reach import OUTSIDE, End, may_reach, pod
from operator_manifests import edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_network import KV_PORTS, Origin, network_policies
from pdcluster_operator.plan.site import GRPC_PORT, HTTP_PORT, METRICS_PORT

HOME = "team"
HERE = Origin("system")


def own(role: str, namespace: str = HOME, cluster: str = "demo") -> End:
    return pod(namespace, labels.of_pod(cluster, role, "1"))


PREFILL, DECODE, ROUTER, MIXED = own("prefill"), own("decode"), own("router"), own("mixed")
OPERATOR = pod("system", {"app.kubernetes.io/name": "pdcluster-operator"})
ADAPTER = pod("system", {"app.kubernetes.io/name": "pdcluster-metrics-adapter"})
PROMETHEUS = pod("monitoring", {"app": "prometheus"})
INGRESS = pod("ingress", {"app": "nginx"})
NEIGHBOUR = pod(HOME, {"app": "neighbour"})
STRANGER = pod("elsewhere", {"app": "stranger"})
DNS = pod("kube-system", {"k8s-app": "kube-dns"})
IMPOSTOR = pod("elsewhere", {"app.kubernetes.io/name": "pdcluster-operator"})
OTHER_CLUSTER = own("decode", cluster="other")
SAME_NAME_ELSEWHERE = own("decode", namespace="elsewhere")


def policies(changes: dict[str, Any] | None = None, origin: Origin = HERE) -> list[dict[str, Any]]:
    manifest = edited(changes)
    cluster = parse({**manifest, "metadata": {"name": "demo", "namespace": HOME, "uid": "u", "generation": 1}})
    found = network_policies(cluster, origin)
    return [{**entry, "metadata": {**entry["metadata"], "namespace": HOME}} for entry in found]


REQUIRED = {
    "operator to Admin of a worker": (OPERATOR, PREFILL, GRPC_PORT),
    "operator to what a worker tells": (OPERATOR, DECODE, METRICS_PORT),
    "scraper to a worker": (PROMETHEUS, PREFILL, METRICS_PORT),
    "scraper to the router": (PROMETHEUS, ROUTER, METRICS_PORT),
    "adapter to a worker": (ADAPTER, DECODE, METRICS_PORT),
    "first KV port": (PREFILL, DECODE, KV_PORTS[0]),
    "last KV port": (DECODE, PREFILL, KV_PORTS[1]),
    "prefill links to decode": (PREFILL, DECODE, GRPC_PORT),
    "router to prefill": (ROUTER, PREFILL, GRPC_PORT),
    "router to mixed": (ROUTER, MIXED, GRPC_PORT),
    "router to the API server": (ROUTER, OUTSIDE, 6443),
    "router to the API server's service": (ROUTER, OUTSIDE, 443),
    "ingress to the router": (INGRESS, ROUTER, HTTP_PORT),
}
FORBIDDEN = {
    "neighbour to Admin": (NEIGHBOUR, PREFILL, GRPC_PORT),
    "another namespace to Admin": (STRANGER, PREFILL, GRPC_PORT),
    "an impostor in another namespace to Admin": (IMPOSTOR, PREFILL, GRPC_PORT),
    "another cluster's worker to Admin": (OTHER_CLUSTER, PREFILL, GRPC_PORT),
    "a namesake in another namespace": (SAME_NAME_ELSEWHERE, PREFILL, GRPC_PORT),
    "another cluster's worker to KV": (OTHER_CLUSTER, PREFILL, KV_PORTS[0]),
    "another namespace to KV": (STRANGER, DECODE, KV_PORTS[0]),
    "router to KV": (ROUTER, DECODE, KV_PORTS[0]),
    "the port after KV": (PREFILL, DECODE, KV_PORTS[1] + 1),
    "worker to the API server": (PREFILL, OUTSIDE, 6443),
    "worker to the internet": (DECODE, OUTSIDE, 443),
    "worker to a stranger": (DECODE, STRANGER, GRPC_PORT),
    "worker to another cluster": (PREFILL, OTHER_CLUSTER, GRPC_PORT),
    "worker to the router": (PREFILL, ROUTER, HTTP_PORT),
    "router to the internet": (ROUTER, OUTSIDE, 80),
    "scraper to the router's API by its gRPC port": (PROMETHEUS, ROUTER, GRPC_PORT),
}


@pytest.mark.parametrize(("source", "target", "port"), REQUIRED.values(), ids=REQUIRED.keys())
def test_what_serving_needs_is_let_through(source: End, target: End, port: int) -> None:
    assert may_reach(policies(), source, target, port)


@pytest.mark.parametrize(("source", "target", "port"), FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_nothing_else_is(source: End, target: End, port: int) -> None:
    assert not may_reach(policies(), source, target, port)


@pytest.mark.parametrize("source", [PREFILL, ROUTER])
@pytest.mark.parametrize("protocol", ["UDP", "TCP"])
def test_names_are_resolved(source: End, protocol: str) -> None:
    assert may_reach(policies(), source, DNS, 53, protocol)


@pytest.mark.parametrize("source", [PREFILL, DECODE, ROUTER])
def test_a_model_that_is_fetched_can_be(source: End) -> None:
    fetched = policies({"spec.model.source": {"huggingFace": {"repo": "a/b"}}})
    assert may_reach(fetched, source, OUTSIDE, 443)
    assert not may_reach(fetched, source, OUTSIDE, 80)


def test_only_the_callers_that_the_spec_names_reach_the_router() -> None:
    caller = {"namespaceLabels": {"kubernetes.io/metadata.name": "ingress"}, "podLabels": {"app": "nginx"}}
    named = policies({"spec.security": {"allowFrom": [caller]}})
    assert may_reach(named, INGRESS, ROUTER, HTTP_PORT)
    assert not may_reach(named, NEIGHBOUR, ROUTER, HTTP_PORT)
    assert not may_reach(named, STRANGER, ROUTER, HTTP_PORT)
    assert may_reach(named, PROMETHEUS, ROUTER, METRICS_PORT)


def test_traces_reach_their_collector_and_nothing_more() -> None:
    traced = policies({"spec.observability": {"tracing": {"endpoint": "http://collector.monitoring:4317"}}})
    assert may_reach(traced, PREFILL, OUTSIDE, 4317)
    assert not may_reach(traced, PREFILL, OUTSIDE, 4318)


def test_the_api_server_is_reached_where_it_listens() -> None:
    found = policies(origin=Origin("system", api_server_ports=(16443,)))
    assert may_reach(found, ROUTER, OUTSIDE, 16443)
    assert not may_reach(found, ROUTER, OUTSIDE, 6443)
