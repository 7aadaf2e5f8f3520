"""The rules of a PDCluster, each as an edit of a valid spec that keeps it and one that breaks it.

A row is (name, edit, problem): the edit maps a path to a value, None removes the field, and the problem is part of the
message, or None when the edit is accepted. The same rows go through the API server and through the typed model.
"""

import copy
from typing import Any

Manifest = dict[str, Any]
Edit = dict[str, Any]

CPU = {"replicas": 1, "gpu": {"count": 0}}
VALID: Manifest = {
    "apiVersion": "pdcluster.dev/v1alpha1",
    "kind": "PDCluster",
    "metadata": {"name": "valid"},
    "spec": {
        "model": {"name": "tiny", "source": {"hostPath": {"path": "/models/tiny"}}},
        "prefill": {"replicas": 2, "gpu": {"count": 0}},
        "decode": {"replicas": 2, "gpu": {"count": 0}},
        "transport": {"kv": {"protocol": "TCP"}},
    },
}

EXTERNAL = {"mode": "External", "maxReplicas": 4}
MANAGED = {"mode": "Managed", "maxReplicas": 4}

ROWS: list[tuple[str, Edit, str | None]] = [
    ("as it is", {}, None),
    ("mixed alone", {"prefill": None, "decode": None, "mixed": CPU}, None),
    ("all three roles", {"mixed": CPU}, None),
    ("prefill alone", {"decode": None}, "required beside prefill"),
    ("decode alone", {"prefill": None}, "required beside decode"),
    ("no role", {"prefill": None, "decode": None}, "here is none"),
    ("no source", {"model.source": {}}, "exactly one of"),
    ("two sources", {"model.source.pvc": {"claimName": "c"}}, "exactly one of"),
    ("a claim", {"model.source": {"pvc": {"claimName": "c", "subPath": "x"}}}, None),
    ("a hub repository", {"model.source": {"huggingFace": {"repo": "a/b"}}}, None),
    ("an image", {"model.source": {"image": {"reference": "r/model:1"}}}, None),
    ("equal block sizes by default", {"prefill.engine": {"blockSize": 64}}, None),
    ("different block sizes", {"prefill.engine": {"blockSize": 32}}, "must be equal in roles that pair"),
    ("block sizes equal again", {"prefill.engine": {"blockSize": 32}, "decode.engine": {"blockSize": 32}}, None),
    ("block size of all", {"engine": {"blockSize": 32}, "prefill.engine": {"blockSize": 32}}, None),
    ("different dtypes", {"decode.engine": {"dtype": "bfloat16"}}, "must be equal in roles that pair"),
    ("equal dtypes", {"engine": {"dtype": "bfloat16"}, "decode.engine": {"dtype": "bfloat16"}}, None),
    ("both at zero", {"prefill.replicas": 0, "decode.replicas": 0}, None),
    ("one at zero", {"prefill.replicas": 0}, "0 together"),
    ("one at zero, the other absent", {"prefill.replicas": 0, "decode.replicas": None}, "0 together"),
    ("replicas absent", {"prefill.replicas": None, "decode.replicas": None}, None),
    ("too many replicas", {"prefill.replicas": 1001}, "1000"),
    ("negative replicas", {"prefill.replicas": -1}, "0"),
    ("External without replicas", {"decode.replicas": None, "decode.scaling": EXTERNAL}, None),
    ("External with replicas", {"decode.scaling": EXTERNAL}, "must be absent unless scaling.mode is Static"),
    ("Managed with replicas", {"decode.scaling": MANAGED}, "must be absent unless scaling.mode is Static"),
    ("no maximum", {"decode.replicas": None, "decode.scaling": {"mode": "External"}}, "required unless mode is Static"),
    (
        "minimum above maximum",
        {"decode.replicas": None, "decode.scaling": {**EXTERNAL, "minReplicas": 5}},
        "must not be above maxReplicas",
    ),
    (
        "minimum of zero",
        {"decode.replicas": None, "decode.scaling": {**EXTERNAL, "minReplicas": 0}},
        "minReplicas",
    ),
    (
        "targets of a Managed role",
        {"decode.replicas": None, "decode.scaling": {**MANAGED, "targets": {"kvUsage": "0.7"}}},
        None,
    ),
    (
        "targets of an External role",
        {"decode.replicas": None, "decode.scaling": {**EXTERNAL, "targets": {"kvUsage": "0.7"}}},
        "only in mode Managed",
    ),
    (
        "the pace of a Managed role",
        {"decode.replicas": None, "decode.scaling": {**MANAGED, "behavior": {"scaleDownStabilizationSeconds": 900}}},
        None,
    ),
    (
        "a pace that no autoscaler takes",
        {"decode.replicas": None, "decode.scaling": {**MANAGED, "behavior": {"scaleDownStabilizationSeconds": 3601}}},
        "3600",
    ),
    (
        "the pace of an External role",
        {"decode.replicas": None, "decode.scaling": {**EXTERNAL, "behavior": {"scaleUpStabilizationSeconds": 0}}},
        "only in mode Managed",
    ),
    (
        "a target of the other role",
        {"decode.replicas": None, "decode.scaling": {**MANAGED, "targets": {"queueSeconds": "1"}}},
        "is no target of decode",
    ),
    (
        "occupancy as a target of prefill",
        {"prefill.replicas": None, "prefill.scaling": {**MANAGED, "targets": {"kvUsage": "0.7"}}},
        "is no target of prefill",
    ),
    (
        "running requests as a target of prefill",
        {"prefill.replicas": None, "prefill.scaling": {**MANAGED, "targets": {"runningPerReplica": 8}}},
        "is no target of prefill",
    ),
    ("a ratio", {"scalingPolicy": {"ratio": {"min": "0.5", "max": "2"}}}, None),
    ("a ratio upside down", {"scalingPolicy": {"ratio": {"min": "2", "max": "0.5"}}}, "must not be above max"),
    ("a ratio of ten to nine", {"scalingPolicy": {"ratio": {"min": "9", "max": "10"}}}, None),
    ("a ratio that is no number", {"scalingPolicy": {"ratio": {"min": "half"}}}, "min"),
    ("a budget that is enough", {"prefill.gpu.count": 1, "decode.gpu.count": 1, "scalingPolicy": {"maxGPUs": 4}}, None),
    (
        "a budget that is too small",
        {"prefill.gpu.count": 1, "decode.gpu.count": 1, "scalingPolicy": {"maxGPUs": 3}},
        "less than the Static roles need",
    ),
    ("two GPUs for one rank", {"prefill.gpu.count": 2}, "must be 0 (a CPU worker)"),
    ("tensor parallelism", {"prefill.parallelism": {"tensor": 2}, "prefill.gpu.count": 2}, "only 1"),
    ("pipeline parallelism", {"prefill.parallelism": {"pipeline": 2}, "prefill.gpu.count": 2}, "only 1"),
    ("data parallelism", {"prefill.parallelism": {"data": 2}, "prefill.gpu.count": 2}, "only 1"),
    ("two pods per replica", {"prefill.podsPerReplica": 2}, "only 1"),
    ("RDMA with its device", {"transport.kv": {"protocol": "RDMA", "rdma": {"count": 2}}}, None),
    ("a device without RDMA", {"transport.kv": {"protocol": "TCP", "rdma": {}}}, "only with protocol RDMA"),
    ("an unknown protocol", {"transport.kv.protocol": "UDP"}, "protocol"),
    ("certificates of one's own", {"tls": {"secretName": "certs"}}, None),
    ("certificates of an issuer", {"tls": {"issuerRef": {"name": "ca"}}}, None),
    ("certificates of both", {"tls": {"secretName": "certs", "issuerRef": {"name": "ca"}}}, "at most one of"),
    ("no TLS", {"tls": {"mode": "Disabled"}}, None),
    ("no TLS but certificates", {"tls": {"mode": "Disabled", "secretName": "certs"}}, "leaves no use"),
    ("a topology", {"topology": {"mode": "Preferred", "key": "topology.kubernetes.io/zone"}}, None),
    ("a topology without key", {"topology": {"mode": "Required"}}, "required unless mode is None"),
    ("a grace period that is enough", {"prefill.terminationGracePeriodSeconds": 330}, None),
    ("a grace period that is too short", {"prefill.terminationGracePeriodSeconds": 329}, "drain.timeoutSeconds + 30"),
    (
        "a short grace period after a short drain",
        {"decode.terminationGracePeriodSeconds": 40, "drain": {"timeoutSeconds": 10}},
        None,
    ),
    ("a short grace period of mixed", {"mixed": {**CPU, "terminationGracePeriodSeconds": 30}}, "timeoutSeconds + 30"),
    ("prepare threads", {"prefill.engine": {"prepareThreads": 16}}, None),
    ("no prepare threads", {"engine": {"prepareThreads": 0}}, "prepareThreads"),
    ("a fraction of a block", {"engine": {"blockSize": 1.5}}, "blockSize"),
    ("a number as a name", {"model.name": 5}, "model.name"),
    ("an unknown strategy", {"rollout": {"strategy": "BlueGreen"}}, "strategy"),
    ("a quantity as a number", {"prefill.resources": {"limits": {"cpu": 2, "memory": "4Gi"}}}, None),
    ("a quantity that is none", {"prefill.resources": {"limits": {"memory": "4 Gi"}}}, "limits"),
]

NAMES: list[tuple[str, bool]] = [
    ("a", True),
    ("a" * 40, True),
    ("a-1", True),
    ("a" * 41, False),
    ("1a", False),
    ("a-", False),
    ("a.b", False),
]

CHANGES: list[tuple[str, Edit, str | None]] = [
    ("more pods", {"prefill.replicas": 3}, None),
    ("another image", {"engine": {"image": "other"}}, None),
    ("another model name", {"model.name": "other"}, "is immutable"),
    ("another protocol", {"transport.kv.protocol": "RDMA"}, "is immutable"),
    ("the default protocol", {"transport": None}, "is immutable"),
    ("another source", {"model.source.hostPath.path": "/models/other"}, None),
    ("another role", {"mixed": CPU}, None),
]


def edited(edit: Edit, base: Manifest = VALID) -> Manifest:
    """A copy of the manifest with each path of the edit set, or removed."""
    manifest = copy.deepcopy(base)
    for path, value in edit.items():
        *parents, last = path.split(".")
        node = manifest["spec"]
        for step in parents:
            node = node.setdefault(step, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return manifest
