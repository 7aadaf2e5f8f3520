"""The children of a PDCluster as manifests, from templates and numbers that were decided elsewhere. Pure.

Nothing here knows what exists: the same input gives the same bytes, so that equal can be told by a hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdcluster_operator.crd.cluster import API_VERSION, PDCluster
from pdcluster_operator.crd.scaling import ScalingMode
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_autoscaler import autoscaler
from pdcluster_operator.desired.kubernetes_monitor import pod_monitor
from pdcluster_operator.desired.kubernetes_network import Origin, network_policies
from pdcluster_operator.desired.kubernetes_tls import certificates
from pdcluster_operator.desired.naming import ROUTER, group_name
from pdcluster_operator.plan.site import GRPC_PORT

Manifest = dict[str, Any]

HELD = 2147483647
"""A partition above every ordinal: the StatefulSet controller replaces no pod."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """How many pods a role's StatefulSet has, and from which ordinal on they run its template."""

    replicas: int
    partition: int = HELD


@dataclass(frozen=True, slots=True)
class Render:
    """What the children are made from; `templates` and `numbers` by role, the router's template among them."""

    cluster: PDCluster
    templates: Mapping[str, Manifest]
    numbers: Mapping[str, Numbers]
    origin: Origin


def children(render: Render) -> list[Manifest]:
    """Every child that is applied, with owner and labels. Secrets, revisions and scalers are made elsewhere."""
    cluster = render.cluster
    found = [*_access(cluster), *_router(render)]
    for role in cluster.spec.roles():
        found += [_headless(cluster, role), _stateful_set(render, role)]
    if cluster.spec.disruption.pdb:
        found += [_budget(cluster, role) for role in (*cluster.spec.roles(), ROUTER)]
    if cluster.spec.security.network_policy:
        found += network_policies(cluster, render.origin)
    for role, spec in cluster.spec.roles().items():
        if spec.scaling.mode is ScalingMode.MANAGED:
            found.append(autoscaler(cluster, role, spec.scaling))
    if cluster.spec.observability.pod_monitor.enabled:
        found.append(pod_monitor(cluster))
    return [owned(cluster, manifest) for manifest in [*found, *certificates(cluster)]]


def owned(cluster: PDCluster, manifest: Manifest) -> Manifest:
    """The manifest as a child of the cluster: its namespace, labels and owner."""
    metadata = manifest["metadata"]
    return {
        **manifest,
        "metadata": {
            **metadata,
            "namespace": cluster.metadata.namespace,
            "labels": {**metadata.get("labels", {}), **labels.common(cluster.metadata.name)},
            "ownerReferences": [owner_of(cluster)],
        },
    }


def owner_of(cluster: PDCluster) -> Manifest:
    """The cluster as the owner of its children."""
    return {
        "apiVersion": API_VERSION,
        "kind": "PDCluster",
        "name": cluster.metadata.name,
        "uid": cluster.metadata.uid,
        "controller": True,
    }


def scaler(cluster: PDCluster, role: str, replicas: int) -> Manifest:
    """Sent once, by POST: its number belongs to whoever scales."""
    return owned(
        cluster,
        {
            "apiVersion": API_VERSION,
            "kind": "PDRoleScaler",
            "metadata": {"name": group_name(cluster.metadata.name, role), "labels": {labels.ROLE: role}},
            "spec": {"cluster": cluster.metadata.name, "role": role, "replicas": replicas},
        },
    )


def _access(cluster: PDCluster) -> list[Manifest]:
    """The router's identity: it may read the pods of its namespace, and nothing else."""
    if cluster.spec.security.service_account_name:
        return []
    name, group = group_name(cluster.metadata.name, ROUTER), "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": name, "namespace": cluster.metadata.namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [subject],
        },
    ]


def _router(render: Render) -> list[Manifest]:
    name = group_name(render.cluster.metadata.name, ROUTER)
    selector = labels.selector(render.cluster.metadata.name, ROUTER)
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {labels.ROLE: ROUTER}},
        "spec": {
            "replicas": render.cluster.spec.router.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": render.templates[ROUTER],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {labels.ROLE: ROUTER}},
        "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }
    return [service, deployment]


def _headless(cluster: PDCluster, role: str) -> Manifest:
    """Gives every pod a name, also before it is ready: peers meet before they can serve."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": group_name(cluster.metadata.name, role), "labels": {labels.ROLE: role}},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels.selector(cluster.metadata.name, role),
            "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc"}],
        },
    }


def _stateful_set(render: Render, role: str) -> Manifest:
    name, numbers = group_name(render.cluster.metadata.name, role), render.numbers[role]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "labels": {labels.ROLE: role}},
        "spec": {
            "replicas": numbers.replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": numbers.partition}},
            "selector": {"matchLabels": labels.selector(render.cluster.metadata.name, role)},
            "template": render.templates[role],
        },
    }


def _budget(cluster: PDCluster, role: str) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": group_name(cluster.metadata.name, role), "labels": {labels.ROLE: role}},
        "spec": {
            "maxUnavailable": 1 if role == ROUTER else cluster.spec.disruption.max_unavailable,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": labels.selector(cluster.metadata.name, role)},
        },
    }
