"""Who may reach a PDCluster's pods, and whom they may reach: two NetworkPolicies. Pure."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pdcluster_operator.crd.cluster import ClusterSpec, PDCluster
from pdcluster_operator.crd.policies import Caller
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import ROUTER, group_name
from pdcluster_operator.plan.site import GRPC_PORT, HTTP_PORT, METRICS_PORT

Manifest = dict[str, Any]

KV_PORTS = (20000, 20255)
"""For KV blocks over TCP: fixed by `UCX_TCP_PORT_RANGE`, so that a policy can name them."""
DNS = [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]
API_SERVER_PORTS = (443, 6443)
"""The API server is no pod: only its ports can be named. These are the usual ones."""
HTTPS_PORT = 443
HUB_VARIABLES = {"HF_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"}
COLLECTOR_PORT = 4317


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the operator itself runs, so that its pods, and no others, are let in to administer workers.

    And where the API server listens that it, and so each router, asks.
    """

    namespace: str
    labels: tuple[tuple[str, str], ...] = (("app.kubernetes.io/name", "pdcluster-operator"),)
    api_server_ports: tuple[int, ...] = API_SERVER_PORTS


def network_policies(cluster: PDCluster, origin: Origin) -> list[Manifest]:
    """One for the workers and one for the router."""
    return [_workers(cluster, origin), _router(cluster, origin)]


def _workers(cluster: PDCluster, origin: Origin) -> Manifest:
    own, workers = _pods_of(cluster), _workers_of(cluster)
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": origin.namespace}},
        "podSelector": {"matchLabels": dict(origin.labels)},
    }
    kv = {"protocol": "TCP", "port": KV_PORTS[0], "endPort": KV_PORTS[1]}
    spec = {
        "podSelector": workers,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": own}, operator], "ports": [_tcp(GRPC_PORT)]},
            {"from": [{"podSelector": workers}], "ports": [kv]},
            {"ports": [_tcp(METRICS_PORT)]},
        ],
        "egress": [
            {"ports": DNS},
            {"to": [{"podSelector": workers}], "ports": [_tcp(GRPC_PORT), kv]},
            *_outside(cluster.spec),
        ],
    }
    return _policy(f"{cluster.metadata.name}-workers", spec)


def _router(cluster: PDCluster, origin: Origin) -> Manifest:
    callers = [_caller(caller) for caller in cluster.spec.security.allow_from]
    spec = {
        "podSelector": {"matchLabels": labels.selector(cluster.metadata.name, ROUTER)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {**({"from": callers} if callers else {}), "ports": [_tcp(HTTP_PORT)]},
            {"ports": [_tcp(METRICS_PORT)]},
        ],
        "egress": [
            {"ports": DNS},
            {"ports": [_tcp(port) for port in origin.api_server_ports]},
            {"to": [{"podSelector": _workers_of(cluster)}], "ports": [_tcp(GRPC_PORT)]},
            *_outside(cluster.spec),
        ],
    }
    return _policy(group_name(cluster.metadata.name, ROUTER), spec)


def _outside(spec: ClusterSpec) -> list[Manifest]:
    """What leaves the cluster: a model that is fetched, and traces."""
    rules: list[Manifest] = []
    if spec.model.source.hugging_face:
        rules.append({"ports": [_tcp(port) for port in _hub_ports(spec)]})
    if spec.observability.tracing:
        port = urlsplit(spec.observability.tracing.endpoint).port or COLLECTOR_PORT
        rules.append({"ports": [_tcp(port)]})
    return rules


def _hub_ports(spec: ClusterSpec) -> list[int]:
    """Of the hub, of a mirror that the environment names, and of a proxy."""
    variables = [*spec.router.env, *(variable for role in spec.roles().values() for variable in role.env)]
    urls = [urlsplit(entry.value) for entry in variables if entry.name.upper() in HUB_VARIABLES]
    return sorted({HTTPS_PORT, *(url.port or (80 if url.scheme == "http" else HTTPS_PORT) for url in urls)})


def _caller(caller: Caller) -> Manifest:
    """Without namespace labels, pods of the same namespace are meant."""
    peer: Manifest = {"podSelector": {"matchLabels": caller.pod_labels or {}}}
    if caller.namespace_labels is not None:
        peer["namespaceSelector"] = {"matchLabels": caller.namespace_labels}
    return peer


def _policy(name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


def _pods_of(cluster: PDCluster) -> Manifest:
    return {"matchLabels": {labels.CLUSTER: cluster.metadata.name}}


def _workers_of(cluster: PDCluster) -> Manifest:
    expression = {"key": labels.ROLE, "operator": "In", "values": ["prefill", "decode", "mixed"]}
    return {**_pods_of(cluster), "matchExpressions": [expression]}


def _tcp(port: int) -> Manifest:
    return {"protocol": "TCP", "port": port}
