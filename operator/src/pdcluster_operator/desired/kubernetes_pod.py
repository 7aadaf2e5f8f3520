"""The pod templates of a PDCluster: what runs, with which files, devices and rights. Pure.

The command lines come from the same `plan()` that local mode uses; here is only what Kubernetes adds.
"""

from dataclasses import dataclass, replace
from typing import Any

from pdcluster_operator.crd.cluster import ClusterSpec, PDCluster
from pdcluster_operator.crd.engine import Engine
from pdcluster_operator.crd.policies import TopologyMode
from pdcluster_operator.crd.role import Resources, Role
from pdcluster_operator.crd.transport import KVProtocol, TLSMode
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_model import model_path, model_volume
from pdcluster_operator.desired.kubernetes_network import KV_PORTS
from pdcluster_operator.desired.kubernetes_tls import certificate_secret
from pdcluster_operator.desired.naming import ROUTER, group_name
from pdcluster_operator.desired.overlay import MAIN, overlaid
from pdcluster_operator.desired.pod import PodPlan
from pdcluster_operator.plan.plan import Plan, plan
from pdcluster_operator.plan.site import TLS_FOLDER, ClusterSite

Manifest = dict[str, Any]

NOBODY = 65532
API_KEYS_FOLDER = "/etc/pdcluster/api-keys"
HEALTH_SECONDS = 10
STARTUP_SECONDS = 2
LOADING_ATTEMPTS = 1800
"""Of a startup probe, an hour of them: a large checkpoint takes its time."""
UNREADY_SECONDS = 5
"""A router that goes stays up for so long, while the news that it goes spreads."""


@dataclass(frozen=True, slots=True)
class Release:
    """What the operator's own release stands for, where the spec names nothing else."""

    worker_image: str


def templates(cluster: PDCluster, release: Release) -> dict[str, Manifest]:
    """The pod template of every worker role and of the router, by role."""
    planned = _plan(cluster)
    found = {pod.role: _worker(cluster, planned, pod, release) for pod in planned.workers}
    return {**found, ROUTER: _router(cluster, planned, release)}


def _plan(cluster: PDCluster) -> Plan:
    keys = cluster.spec.router.api_key_secret_ref
    return plan(
        cluster,
        ClusterSite(
            model_path=model_path(cluster.spec.model.source),
            api_key_file=f"{API_KEYS_FOLDER}/{keys.key}" if keys else "",
        ),
    )


def _worker(cluster: PDCluster, planned: Plan, pod: PodPlan, release: Release) -> Manifest:
    spec, name = cluster.spec, cluster.metadata.name
    role = spec.roles()[pod.role]
    engine = spec.engine_of(role)
    rdma = planned.protocol is KVProtocol.RDMA
    container = {
        **_container(pod, engine.image or release.worker_image, engine.pull_policy.value),
        "resources": _worker_resources(role, spec, rdma),
        "securityContext": _restricted(("IPC_LOCK",) if rdma else ()),
        "startupProbe": _probe("/ready", LOADING_ATTEMPTS, "metrics"),
        "livenessProbe": _probe("/health", 3, "metrics"),
        "readinessProbe": _probe("/ready", 1, "metrics"),
    }
    body = {
        **_pod(spec, pod, engine, container),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": _grace(role, spec),
        **_placement(role, spec, name),
    }
    container["env"].append({"name": "UCX_TCP_PORT_RANGE", "value": "-".join(map(str, KV_PORTS))})
    body["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": role.shared_memory}})
    container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
    return _template(cluster, pod.role, planned.revision, body, role.pod_template)


def _router(cluster: PDCluster, planned: Plan, release: Release) -> Manifest:
    spec, pod = cluster.spec, _of_any_revision(planned.router)
    router = spec.router
    container = {
        **_container(pod, router.image or spec.engine.image or release.worker_image, spec.engine.pull_policy.value),
        "resources": _resources(router.resources),
        "securityContext": _restricted(()),
        "startupProbe": _probe("/health", LOADING_ATTEMPTS, "http"),
        "livenessProbe": _probe("/health", 3, "http"),
        "readinessProbe": _probe("/ready", 1, "http"),
        "lifecycle": {"preStop": {"sleep": {"seconds": UNREADY_SECONDS}}},
    }
    body = {
        **_pod(spec, pod, spec.engine, container),
        "serviceAccountName": spec.security.service_account_name or group_name(cluster.metadata.name, ROUTER),
        "terminationGracePeriodSeconds": router.request_timeout_seconds + 30,
    }
    if router.api_key_secret_ref:
        secret = {"secretName": router.api_key_secret_ref.name}
        body["volumes"].append({"name": "api-keys", "secret": secret})
        container["volumeMounts"].append({"name": "api-keys", "mountPath": API_KEYS_FOLDER, "readOnly": True})
    return _template(cluster, ROUTER, "", body, router.pod_template)


def _of_any_revision(pod: PodPlan) -> PodPlan:
    """The router serves through a rollout: it pairs equal revisions, and must not restart when there is a new one."""
    at = pod.command.index("--revision")
    return replace(pod, command=(*pod.command[:at], *pod.command[at + 2 :]))


def _template(cluster: PDCluster, role: str, revision: str, body: Manifest, overlay: Any) -> Manifest:
    marks = labels.of_pod(cluster.metadata.name, role, revision)
    if not revision:
        del marks[labels.REVISION]
    notes = {"annotations": {labels.RESTARTED: ""}} if revision else {}
    template = {"metadata": {"labels": marks, **notes}, "spec": body}
    over = overlay.model_dump(mode="json", by_alias=True, exclude_none=True) if overlay else {}
    return overlaid(template, over)


def _container(pod: PodPlan, image: str, pull_policy: str) -> Manifest:
    ports = {"grpc": pod.ports.grpc, "metrics": pod.ports.metrics, "http": pod.ports.http}
    own = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    taken = {variable["name"] for variable in own}
    return {
        "name": MAIN,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": ["python", *pod.command],
        "env": [*own, *({"name": name, "value": value} for name, value in pod.environment if name not in taken)],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items() if port],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _pod(spec: ClusterSpec, pod: PodPlan, engine: Engine, container: Manifest) -> Manifest:
    """What workers and routers have in common; adds the model's and the certificates' mounts to the container."""
    volume, mount, preparation = model_volume(spec.model.source, container["image"], weights=not pod.is_router)
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {}}, volume]
    container["volumeMounts"].append(mount)
    if spec.tls.mode is TLSMode.MTLS:
        cluster = pod.command[pod.command.index("--cluster") + 1].partition(".")[0]
        secret = certificate_secret(cluster, spec.tls, pod.role)
        volumes.append({"name": "tls", "secret": {"secretName": secret}})
        container["volumeMounts"].append({"name": "tls", "mountPath": TLS_FOLDER, "readOnly": True})
    body: Manifest = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if preparation:
        body["initContainers"] = [_before(preparation, container)]
    if engine.pull_secrets:
        body["imagePullSecrets"] = [{"name": secret.name} for secret in engine.pull_secrets]
    return body


def _before(preparation: Manifest, container: Manifest) -> Manifest:
    """A container that runs before the main one, in its surroundings: a proxy, a mirror of the hub."""
    own = {entry["name"] for entry in preparation["env"]}
    inherited = [entry for entry in container["env"] if entry["name"] not in own]
    policy = {"imagePullPolicy": container["imagePullPolicy"], "securityContext": _restricted(())}
    return {**preparation, **policy, "env": [*inherited, *preparation["env"]]}


def _worker_resources(role: Role, spec: ClusterSpec, rdma: bool) -> Manifest:
    devices = {role.gpu.resource_name: str(role.gpu.count)} if role.gpu.count else {}
    if rdma:
        wanted = spec.transport.kv.rdma
        devices[wanted.resource_name if wanted else "rdma/hca"] = str(wanted.count if wanted else 1)
    found = _resources(role.resources)
    return {**found, "limits": {**found.get("limits", {}), **devices}} if devices else found


def _resources(resources: Resources | None) -> Manifest:
    return resources.model_dump(mode="json", by_alias=True, exclude_none=True) if resources else {}


def _grace(role: Role, spec: ClusterSpec) -> int:
    return role.termination_grace_period_seconds or spec.drain.timeout_seconds + 30


def _placement(role: Role, spec: ClusterSpec, cluster: str) -> Manifest:
    placement: Manifest = {
        "nodeSelector": role.node_selector,
        "tolerations": [
            toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in role.tolerations
        ],
        "runtimeClassName": role.runtime_class_name,
        "priorityClassName": role.priority_class_name,
    }
    if spec.topology.mode is not TopologyMode.NONE:
        term = {"labelSelector": {"matchLabels": {labels.CLUSTER: cluster}}, "topologyKey": spec.topology.key}
        placement["affinity"] = {"podAffinity": _affinity(term, spec.topology.mode)}
    return {key: value for key, value in placement.items() if value}


def _affinity(term: Manifest, mode: TopologyMode) -> Manifest:
    if mode is TopologyMode.REQUIRED:
        return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    return {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}


def _restricted(capabilities: tuple[str, ...]) -> Manifest:
    """What the pod security standard `restricted` asks for; IPC_LOCK, which RDMA needs, is the one exception."""
    rights: Manifest = {"drop": ["ALL"]}
    if capabilities:
        rights["add"] = list(capabilities)
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": rights}


def _probe(path: str, failures: int, port: str) -> Manifest:
    """A startup probe asks more often: it ends with its first success."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": STARTUP_SECONDS if failures == LOADING_ATTEMPTS else HEALTH_SECONDS,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
