"""The few facts of each child and pod that decisions are made from, out of what the API server tells of it. Pure."""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pdcluster_operator.certificate_facts import facts_of
from pdcluster_operator.desired import labels
from pdcluster_operator.fields import HASH_ANNOTATION, owned_fields
from pdcluster_operator.kube import FIELD_MANAGER
from pdcluster_operator.resources import Manifest, ObjectKey

ClusterKey = tuple[str, str]
"""Namespace and name of a PDCluster."""
OWN_FINALIZERS = frozenset({"foregroundDeletion", "orphan"})
"""Those that Kubernetes' garbage collector sets and removes."""


@dataclass(frozen=True, slots=True)
class Child:
    """One object that belongs to a cluster; `facts` depends on its kind, see the functions below."""

    key: ObjectKey
    uid: str
    version: str
    owner: str
    """The uid of its controller; empty: it has none."""
    applied: str
    """The hash that the operator noted when it applied it."""
    fields: bytes
    """What of it is still the operator's, see `fields.owned_fields`."""
    leaving: bool
    role: str
    facts: Any = None
    held: tuple[str, ...] = ()
    """Whose finalizers keep it from going when it is deleted, Kubernetes' own apart."""


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """A StatefulSet or Deployment. `settled`: its controller has seen the latest spec."""

    replicas: int
    partition: int
    ready: int
    updated: int
    existing: int
    current_revision: str
    update_revision: str
    template_revision: str
    """The revision that its template is marked with."""
    settled: bool
    changed: float = 0.0
    """When the operator last changed it, in Unix seconds."""
    failure: str = ""
    """Why its controller can make no pods, where that stands in the status."""


@dataclass(frozen=True, slots=True)
class ScalerFacts:
    """What the autoscaler, or a person, asks for, and what was last told."""

    replicas: int
    status: Manifest


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """A ControllerRevision: its number and its data, compressed."""

    number: int
    data: bytes

    def content(self) -> Manifest:
        return dict(json.loads(zlib.decompress(self.data)))


@dataclass(frozen=True, slots=True)
class AutoscalerFacts:
    """Why it does not scale: reason and message of a condition that is not as it should be; empty when all is well."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class IssuedFacts:
    """A Certificate of cert-manager: why it is not ready; empty when it is."""

    message: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of a worker role or of the router. Times are Unix seconds."""

    name: str
    uid: str
    role: str
    ordinal: int
    revision: str
    ready: bool
    leaving: bool
    address: str
    counted: bool
    drain_uid: str
    drain_deadline: float
    created: float
    trouble: str
    """Why it does not run: a container's waiting reason, or `Unschedulable`; empty while there is none."""
    trouble_text: str = ""
    """The words that came with `trouble`."""
    template: str = ""
    """The StatefulSet's own name of the revision that it was made from."""
    changed: float = 0.0
    """When it was last made, or became ready or unready."""
    restarts: int = 0
    """Of its main container."""
    is_held: bool = False
    """A person has asked that this very pod be drained."""
    emptied: str = ""
    """How many restarts it had when that request was fulfilled; empty: it is not yet."""
    held: tuple[str, ...] = ()
    """Whose finalizers keep it from going when it is deleted, Kubernetes' own apart."""
    version: int = 0

    @property
    def serves(self) -> bool:
        """It is ready, and nobody has asked it out of service."""
        return self.ready and not self.is_held


def cluster_of(kind: str, manifest: Manifest) -> ClusterKey | None:
    """Which cluster an object belongs to, by its label."""
    metadata = manifest["metadata"]
    name = metadata["name"] if kind == "PDCluster" else metadata.get("labels", {}).get(labels.CLUSTER)
    return (metadata["namespace"], name) if name else None


def child_of(kind: str, manifest: Manifest) -> Child:
    """The facts of a child."""
    metadata = manifest["metadata"]
    owners = [entry["uid"] for entry in metadata.get("ownerReferences", []) if entry.get("controller")]
    return Child(
        key=ObjectKey(kind, metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=metadata["resourceVersion"],
        owner=owners[0] if owners else "",
        applied=metadata.get("annotations", {}).get(HASH_ANNOTATION, ""),
        fields=owned_fields(manifest, FIELD_MANAGER),
        leaving="deletionTimestamp" in metadata,
        role=metadata.get("labels", {}).get(labels.ROLE, ""),
        facts=_FACTS[kind](manifest) if kind in _FACTS else None,
        held=blocking_finalizers(metadata),
    )


def blocking_finalizers(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Finalizers that nobody in Kubernetes itself takes away."""
    return tuple(entry for entry in metadata.get("finalizers") or () if entry not in OWN_FINALIZERS)


def pod_of(manifest: Manifest) -> Pod:
    """The facts of a pod."""
    metadata, status = manifest["metadata"], manifest.get("status", {})
    marks, notes = metadata.get("labels", {}), metadata.get("annotations", {})
    _, _, ordinal = metadata["name"].rpartition("-")
    created = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
    trouble, text = _trouble(status)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        role=marks.get(labels.ROLE, ""),
        ordinal=int(ordinal) if ordinal.isdigit() else 0,
        revision=marks.get(labels.REVISION, ""),
        ready=condition(status, "Ready") == "True",
        leaving="deletionTimestamp" in metadata,
        address=status.get("podIP", ""),
        counted=marks.get(labels.COUNTED) == "true",
        drain_uid=notes.get(labels.DRAIN_UID, ""),
        drain_deadline=_number(notes.get(labels.DRAIN_DEADLINE, "")),
        created=created,
        trouble=trouble,
        trouble_text=text,
        template=marks.get("controller-revision-hash", ""),
        changed=max(created, _last_change(status, "Ready")),
        restarts=sum(entry.get("restartCount", 0) for entry in status.get("containerStatuses") or []),
        is_held=notes.get(labels.DRAIN) == metadata["uid"],
        emptied=notes.get(labels.DRAINED, ""),
        held=blocking_finalizers(metadata),
        version=int(metadata.get("resourceVersion", 0)),
    )


def _number(text: str) -> float:
    """Of an annotation, which anybody can write; 0 for what is no number."""
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if math.isfinite(found) else 0.0


def condition(status: Mapping[str, Any], kind: str) -> str:
    """The status of a condition; empty when it is not there."""
    return next((entry["status"] for entry in status.get("conditions") or [] if entry["type"] == kind), "")


def _last_change(status: Mapping[str, Any], kind: str) -> float:
    """When a condition last changed; 0 when that is not told."""
    told = [entry.get("lastTransitionTime") for entry in status.get("conditions") or [] if entry["type"] == kind]
    return max((datetime.fromisoformat(stamp).timestamp() for stamp in told if stamp), default=0.0)


def _trouble(status: Mapping[str, Any]) -> tuple[str, str]:
    """Why a pod does not run: a reason and a text, both empty while there is none."""
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for entry in containers:
        waiting = entry.get("state", {}).get("waiting", {})
        reason = str(waiting.get("reason", ""))
        if reason and reason not in {"ContainerCreating", "PodInitializing"}:
            return reason, str(waiting.get("message", ""))
    for entry in status.get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            return str(entry.get("reason", "Unschedulable")), str(entry.get("message", ""))
    return "", ""


def _workload(manifest: Manifest) -> WorkloadFacts:
    spec, status = manifest["spec"], manifest.get("status", {})
    rolling = spec.get("updateStrategy", {}).get("rollingUpdate") or {}
    return WorkloadFacts(
        replicas=spec.get("replicas", 1),
        partition=rolling.get("partition", 0),
        ready=status.get("readyReplicas", 0),
        updated=status.get("updatedReplicas", 0),
        existing=status.get("replicas", 0),
        current_revision=status.get("currentRevision", ""),
        update_revision=status.get("updateRevision", ""),
        template_revision=spec["template"]["metadata"].get("labels", {}).get(labels.REVISION, ""),
        settled=status.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 0),
        changed=_applied_at(manifest),
        failure=_failure(status),
    )


def _failure(status: Mapping[str, Any]) -> str:
    """A Deployment says so itself; of a StatefulSet only events tell."""
    for entry in status.get("conditions") or []:
        if entry["type"] == "ReplicaFailure" and entry["status"] == "True":
            return str(entry.get("message") or entry.get("reason", ""))
    return ""


def _applied_at(manifest: Manifest) -> float:
    """When the operator's own fields last changed, as the API server noted it."""
    for entry in manifest["metadata"].get("managedFields", []):
        if entry.get("manager") == FIELD_MANAGER and not entry.get("subresource") and entry.get("time"):
            return datetime.fromisoformat(entry["time"]).timestamp()
    return 0.0


def _scaler(manifest: Manifest) -> ScalerFacts:
    return ScalerFacts(manifest["spec"]["replicas"], manifest.get("status") or {})


def _revision(manifest: Manifest) -> RevisionFacts:
    data = json.dumps(manifest.get("data") or {}, separators=(",", ":")).encode()
    return RevisionFacts(manifest.get("revision", 0), zlib.compress(data, 6))


def _autoscaler(manifest: Manifest) -> AutoscalerFacts:
    for entry in manifest.get("status", {}).get("conditions") or []:
        if entry["type"] in {"AbleToScale", "ScalingActive"} and entry["status"] == "False":
            return AutoscalerFacts(entry.get("reason", ""), entry.get("message", ""))
    return AutoscalerFacts("", "")


def _issued(manifest: Manifest) -> IssuedFacts:
    for entry in manifest.get("status", {}).get("conditions") or []:
        if entry["type"] == "Ready" and entry["status"] != "True":
            return IssuedFacts(entry.get("message") or entry.get("reason", ""))
    return IssuedFacts("")


_FACTS = {
    "Secret": facts_of,
    "Certificate": _issued,
    "StatefulSet": _workload,
    "Deployment": _workload,
    "PDRoleScaler": _scaler,
    "ControllerRevision": _revision,
    "HorizontalPodAutoscaler": _autoscaler,
}
