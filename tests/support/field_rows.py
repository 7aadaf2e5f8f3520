"""What each field of a PDCluster's spec does to its children: one change of each, for a table test.

The base is a small cluster whose rollout is paused, so that a change of the pods shows in templates and replaces none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

Edit = dict[str, Any]
"""Path to value; None removes the field."""

BASE: Edit = {
    "mixed": {"replicas": 1, "gpu": {"count": 0}},
    "drain": {"timeoutSeconds": 1},
    "rollout": {"paused": True},
}
RDMA: Edit = {**BASE, "transport": {"kv": {"protocol": "RDMA"}}}
STATEFUL_SET, DEPLOYMENT = "apps/v1/StatefulSet", "apps/v1/Deployment"
AUTOSCALER, SCALER = "autoscaling/v2/HorizontalPodAutoscaler", "pdcluster.dev/v1alpha1/PDRoleScaler"
BUDGET, POLICY = "policy/v1/PodDisruptionBudget", "networking.k8s.io/v1/NetworkPolicy"
CERTIFICATE, MONITOR = "cert-manager.io/v1/Certificate", "monitoring.coreos.com/v1/PodMonitor"
PAIR = ("prefill", "decode")
ROLES = (*PAIR, "mixed")


@dataclass(frozen=True)
class Row:
    """`edit` sets `field`; then `text` appears in the JSON of the child, or goes, or the API server refuses with it.

    `first`: an edit of the base that the change starts from. `group`: what follows the cluster's name in the child's.
    """

    field: str
    edit: Edit
    kind: str
    group: str
    text: str
    first: Edit = field(default_factory=dict)
    is_gone: bool = False
    is_refused: bool = False
    name: str = "demo"


def refused(path: str, value: Any, text: str, **first: Any) -> Row:
    return Row(path, {path: value}, "", "", text, is_refused=True, first=first)


def rows() -> list[Row]:
    """All of them."""
    return [*_model(), *_engine("engine", "decode"), *_roles(), *_router(), *_links(), *_scaling(), *_policies()]


ELSEWHERE = {
    "paused": "test_fields.py: a paused cluster",
    "rollout.progressDeadlineSeconds": "test_status.py: a revision that finds no place stalls",
}
"""Fields that show in no child, and where they are tested."""


def _model() -> Iterator[Row]:
    def of(path: str, source: Edit, text: str) -> Row:
        return Row(f"model.source.{path}", {"model.source": source}, STATEFUL_SET, "prefill", text)

    yield refused("model.name", "other", "is immutable")
    yield of("hostPath.path", {"hostPath": {"path": "/models/other"}}, '"/models/other"')
    yield of("huggingFace.repo", {"huggingFace": {"repo": "a/b"}}, '"--repo", "a/b"')
    yield of("huggingFace.revision", {"huggingFace": {"repo": "a/b", "revision": "abc"}}, '"--revision", "abc"')
    yield of("huggingFace.tokenSecret", {"huggingFace": {"repo": "a/b", "tokenSecret": "hub"}}, '"name": "hub"')
    yield of("pvc.claimName", {"pvc": {"claimName": "claim"}}, '"claimName": "claim"')
    yield of("pvc.subPath", {"pvc": {"claimName": "claim", "subPath": "deep"}}, '"subPath": "deep"')
    yield of("image.reference", {"image": {"reference": "r/model:1"}}, '"reference": "r/model:1"')
    pulled = {"reference": "r/model:1", "pullPolicy": "Always"}
    yield of("image.pullPolicy", {"image": pulled}, '"pullPolicy": "Always"')


ENGINE: list[tuple[str, Any, str]] = [
    ("image", "other:1", '"image": "other:1"'),
    ("pullPolicy", "Always", '"imagePullPolicy": "Always"'),
    ("pullSecrets", [{"name": "pull"}], '"imagePullSecrets": [{"name": "pull"}]'),
    ("prepareThreads", 7, '"--prepare-threads", "7"'),
    ("blockSize", 32, '"--block-size", "32"'),
    ("kvBlocks", 999, '"--kv-blocks", "999"'),
    ("maxModelLength", 4321, '"--max-model-length", "4321"'),
    ("maxBatchTokens", 999, '"--max-batch-tokens", "999"'),
    ("maxRunningRequests", 9, '"--max-running-requests", "9"'),
    ("prefixCaching", False, '"--no-prefix-caching"'),
    ("dtype", "bfloat16", '"--dtype", "bfloat16"'),
    ("runner", "Simulated", '"--runner", "Simulated"'),
    ("profile", "/profile.json", '"--profile", "/profile.json"'),
    ("memoryUtilization", 0.5, '"--memory-utilization", "0.5"'),
]
EQUAL_IN_PAIRS = {"blockSize", "dtype"}


def _engine(place: str, role: str) -> Iterator[Row]:
    for name, value, text in ENGINE:
        both = PAIR if name in EQUAL_IN_PAIRS and place != "engine" and role in PAIR else ()
        edit = {f"{place}.{name}": value, **{f"{other}.engine.{name}": value for other in both}}
        yield Row(f"{place}.{name}", edit, STATEFUL_SET, role, text)


POD: list[tuple[str, Any, str]] = [
    ("resources.requests", {"cpu": "1"}, '"requests": {"cpu": "1"}'),
    ("resources.limits", {"memory": "64Gi"}, '"memory": "64Gi"'),
    ("env", [{"name": "EXTRA", "value": "1"}], '"name": "EXTRA"'),
    ("podTemplate.metadata.labels", {"extra": "label"}, '"extra": "label"'),
    ("podTemplate.metadata.annotations", {"extra": "note"}, '"extra": "note"'),
    ("podTemplate.spec", {"schedulerName": "other"}, '"schedulerName": "other"'),
]
WORKER: list[tuple[str, Any, str]] = [
    *POD,
    ("replicas", 3, '"replicas": 3'),
    ("gpu.count", 1, '"nvidia.com/gpu": "1"'),
    ("sharedMemory", "3Gi", '"sizeLimit": "3Gi"'),
    ("nodeSelector", {"example.invalid/slot": "b"}, '"example.invalid/slot": "b"'),
    ("tolerations", [{"key": "example.invalid/taint", "operator": "Exists"}], '"example.invalid/taint"'),
    ("runtimeClassName", "other", '"runtimeClassName": "other"'),
    ("priorityClassName", "high", '"priorityClassName": "high"'),
    ("terminationGracePeriodSeconds", 444, '"terminationGracePeriodSeconds": 444'),
]


def _roles() -> Iterator[Row]:
    for role in ROLES:
        yield from _engine(f"{role}.engine", role)
        for name, value, text in WORKER:
            yield Row(f"{role}.{name}", {f"{role}.{name}": value}, STATEFUL_SET, role, text)
        other = {f"{role}.gpu": {"count": 1, "resourceName": "example.com/gpu"}}
        yield Row(f"{role}.gpu.resourceName", other, STATEFUL_SET, role, '"example.com/gpu": "1"')
        for name in ("parallelism.tensor", "parallelism.pipeline", "parallelism.data", "podsPerReplica"):
            yield refused(f"{role}.{name}", 2, "only 1")
        yield from _role_scaling(role)


TARGETS: list[tuple[str, Any, str, tuple[str, ...]]] = [
    ("queueSeconds", "3", '"averageValue": "3"', ("prefill", "mixed")),
    ("kvUsage", "0.5", '"averageValue": "500m"', ("decode", "mixed")),
    ("runningPerReplica", 9, '"averageValue": "9"', ("decode", "mixed")),
]
PACE = [
    ("scaleUpStabilizationSeconds", 33, '"stabilizationWindowSeconds": 33'),
    ("scaleDownStabilizationSeconds", 333, '"stabilizationWindowSeconds": 333'),
    ("scaleDownPeriodSeconds", 77, '"periodSeconds": 77'),
]


def _role_scaling(role: str) -> Iterator[Row]:
    managed = {f"{role}.replicas": None, f"{role}.scaling": {"mode": "Managed", "maxReplicas": 4}}
    external = {**managed, f"{role}.scaling": {"mode": "External", "maxReplicas": 4}}
    place = f"{role}.scaling"
    yield Row(f"{place}.mode", external, SCALER, role, f'"role": "{role}"')
    for name, value in (("minReplicas", 2), ("maxReplicas", 7)):
        yield Row(f"{place}.{name}", {**managed, f"{place}.{name}": value}, AUTOSCALER, role, f'"{name}": {value}')
    for name, wanted, text, roles in TARGETS:
        edit = {**managed, f"{place}.targets": {name: wanted}}
        row = Row(f"{place}.targets.{name}", edit, AUTOSCALER, role, text)
        yield row if role in roles else replace(row, text=f"is no target of {role}", is_refused=True)
    for name, wanted, text in PACE:
        edit = {**managed, f"{place}.behavior": {name: wanted}}
        yield Row(f"{place}.behavior.{name}", edit, AUTOSCALER, role, text)


def _router() -> Iterator[Row]:
    flags = [("minDisaggTokens", 17), ("maxQueue", 99), ("queueTimeoutSeconds", 98), ("requestTimeoutSeconds", 97)]
    keys = {"name": "keys", "key": "of-clients"}
    found = [
        *POD,
        ("replicas", 2, '"replicas": 2'),
        ("image", "other:1", '"image": "other:1"'),
        ("policy", "RoundRobin", '"--policy", "RoundRobin"'),
        ("maxBodyBytes", 2048, '"--max-body-bytes", "2048"'),
        *((name, value, f'"{value}"') for name, value in flags),
    ]
    for name, value, text in found:
        yield Row(f"router.{name}", {f"router.{name}": value}, DEPLOYMENT, "router", text)
    for name, text in (("name", '"secretName": "keys"'), ("key", "/of-clients")):
        edit = {"router.apiKeySecretRef": keys}
        yield Row(f"router.apiKeySecretRef.{name}", edit, DEPLOYMENT, "router", text)


def _links() -> Iterator[Row]:
    yield refused("transport.kv.protocol", "RDMA", "is immutable")
    for name, value, text in (("count", 2, '"rdma/hca": "2"'), ("resourceName", "rdma/ib", '"rdma/ib": "1"')):
        path = f"transport.kv.rdma.{name}"
        yield Row(path, {path: value}, STATEFUL_SET, "decode", text, name="fast")
    yield Row("tls.mode", {"tls.mode": "Disabled"}, STATEFUL_SET, "decode", '"--tls-cert"', is_gone=True)
    yield Row("tls.secretName", {"tls.secretName": "mine"}, STATEFUL_SET, "decode", '"secretName": "mine"')
    issuer = {"tls.issuerRef": {"name": "authority", "kind": "ClusterIssuer"}}
    for name, text in (("name", '"name": "authority"'), ("kind", '"kind": "ClusterIssuer"')):
        yield Row(f"tls.issuerRef.{name}", issuer, CERTIFICATE, "decode-cert", text)


def _scaling() -> Iterator[Row]:
    """Prefill may be scaled, decode has two pods: the ratio and the budget give prefill more than its two, or fewer."""
    scaled: Edit = {"prefill.replicas": None, "prefill.scaling": {"mode": "External", "maxReplicas": 4}}

    def of(path: str, value: Any, replicas: int, **first: Any) -> Row:
        start = {**scaled, **first}
        edit = {**start, f"scalingPolicy.{path}": value}
        text = f'"replicas": {replicas}'
        return Row(f"scalingPolicy.{path}", edit, STATEFUL_SET, "prefill", text, first=start)

    yield of("ratio.max", "0.5", 1)
    yield of("ratio.min", "2", 4)
    alone = {"scalingPolicy.ratio.min": "2", "scalingPolicy.coordination": "Independent"}
    yield of("coordination", "Bounded", 4, **alone)
    yield of("maxGPUs", 1, 1, **{"prefill.gpu.count": 1})


def _policies() -> Iterator[Row]:
    yield refused("rollout.strategy", "BlueGreen", "rollout.strategy")
    threads = {"engine.prepareThreads": 8}
    going = {**threads, "rollout.paused": False}
    yield Row("rollout.paused", going, STATEFUL_SET, "prefill", "2147483647", first=threads, is_gone=True)
    edit: Edit = {"drain.timeoutSeconds": 7}
    yield Row("drain.timeoutSeconds", edit, STATEFUL_SET, "decode", '"--drain-timeout", "7"')
    yield Row("disruption.pdb", {"disruption.pdb": False}, BUDGET, "decode", "maxUnavailable", is_gone=True)
    yield Row("disruption.maxUnavailable", {"disruption.maxUnavailable": 2}, BUDGET, "decode", '"maxUnavailable": 2')
    path = "security.serviceAccountName"
    yield Row(path, {path: "mine"}, DEPLOYMENT, "router", '"serviceAccountName": "mine"')
    yield Row("security.networkPolicy", {"security.networkPolicy": False}, POLICY, "workers", "ingress", is_gone=True)
    callers = {"security.allowFrom": [{"podLabels": {"app": "caller"}}]}
    yield Row("security.allowFrom", callers, POLICY, "router", '"app": "caller"')
    for mode, word in (("mode", "preferredDuringScheduling"), ("key", '"topologyKey": "example.invalid/rack"')):
        near = {"topology": {"mode": "Preferred", "key": "example.invalid/rack"}}
        yield Row(f"topology.{mode}", near, STATEFUL_SET, "decode", word)
    watched = {"enabled": True, "labels": {"release": "prometheus"}, "interval": "33s"}
    monitor = {"observability.podMonitor": watched}
    for name, text in (("enabled", '"port": "metrics"'), ("labels", '"release": "prometheus"'), ("interval", '"33s"')):
        yield Row(f"observability.podMonitor.{name}", monitor, MONITOR, "", text)
    edit = {"observability.tracing": {"endpoint": "http://tracing:4317"}}
    yield Row("observability.tracing.endpoint", edit, STATEFUL_SET, "decode", '"http://tracing:4317"')
