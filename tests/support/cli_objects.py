"""Objects as the API server gives them, for the pure parts of `pdc`."""

from typing import Any

from cel_table import edited

Manifest = dict[str, Any]

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
MANAGED = {"mode": "Managed", "minReplicas": 1, "maxReplicas": 4}


def cluster(status: Manifest | None = None, **edit: Any) -> Manifest:
    """A PDCluster named demo; keys of `edit` are paths with `__` for dots."""
    manifest = edited({key.replace("__", "."): value for key, value in edit.items()})
    metadata = {"name": "demo", "namespace": "prod", "uid": "cluster-uid", "generation": 3}
    return {**manifest, "metadata": metadata, "status": {"observedGeneration": 3, **(status or {})}}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Manifest:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": "t"}


def pod(name: str, role: str, *, ready: bool = True, uid: str = "u", **notes: str) -> Manifest:
    """`notes` are annotations without their prefix, `_` standing for `-`."""
    marks = {"pdcluster.dev/cluster": "demo", "pdcluster.dev/role": role, "pdcluster.dev/revision": "aaa"}
    annotations = {f"pdcluster.dev/{key.replace('_', '-')}": value for key, value in notes.items()}
    return {
        "metadata": {"name": name, "namespace": "prod", "uid": uid, "labels": marks, "annotations": annotations},
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running" if ready else "Pending",
            "conditions": [condition("Ready", "True" if ready else "False")],
            "containerStatuses": [{"restartCount": 2}],
        },
    }


def scaler(role: str, replicas: int) -> Manifest:
    return {"metadata": {"labels": {"pdcluster.dev/role": role}}, "spec": {"replicas": replicas}}


def workload(role: str, replicas: int) -> Manifest:
    return scaler(role, replicas)
