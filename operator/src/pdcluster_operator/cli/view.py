"""What `pdc status` shows of a PDCluster, as values taken from the objects. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import ROUTER, WORKER_ROLES
from pdcluster_operator.resources import Manifest

ROLE_ORDER = {role: number for number, role in enumerate((*WORKER_ROLES, ROUTER))}


class DrainState(StrEnum):
    """Whether a pod takes new requests."""

    NONE = ""
    ASKED = "asked for"
    DRAINING = "draining"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True)
class ConditionView:
    type: str
    status: str
    reason: str
    message: str
    since: str


@dataclass(frozen=True, slots=True)
class RoleView:
    name: str
    desired: int
    effective: int
    ready: int
    updated: int
    draining: int
    limited_by: str


@dataclass(frozen=True, slots=True)
class RevisionsView:
    """`updated` of `total` worker pods are of the target."""

    current: str
    target: str
    phase: str
    updated: int
    total: int


@dataclass(frozen=True, slots=True)
class PodView:
    name: str
    role: str
    revision: str
    phase: str
    ready: bool
    drain: DrainState
    node: str
    restarts: int


@dataclass(frozen=True, slots=True)
class StatusView:
    """`current`: the status tells of the latest spec; it is the operator's, and may be behind or missing."""

    namespace: str
    name: str
    endpoint: str
    paused: bool
    current: bool
    conditions: tuple[ConditionView, ...]
    roles: tuple[RoleView, ...]
    revisions: RevisionsView
    pods: tuple[PodView, ...]


def status_view(cluster: Manifest, pods: Iterable[Manifest]) -> StatusView:
    """One PDCluster with its pods."""
    metadata, status = cluster["metadata"], cluster.get("status") or {}
    rollout = status.get("rollout") or {}
    found = sorted((pod_view(pod) for pod in pods), key=lambda pod: (ROLE_ORDER.get(pod.role, 9), _natural(pod.name)))
    return StatusView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        endpoint=status.get("endpoint", ""),
        paused=bool(cluster["spec"].get("paused")),
        current=is_current(cluster),
        conditions=tuple(_condition(entry) for entry in status.get("conditions") or []),
        roles=(*(_role(entry) for entry in status.get("roles") or []), _router(cluster, found)),
        revisions=RevisionsView(
            status.get("currentRevision", ""),
            status.get("targetRevision", ""),
            rollout.get("phase", ""),
            rollout.get("updated", 0),
            rollout.get("total", 0),
        ),
        pods=tuple(found),
    )


def is_current(cluster: Manifest) -> bool:
    """Whether the status tells of the spec as it is now."""
    observed = (cluster.get("status") or {}).get("observedGeneration", 0)
    return bool(observed >= cluster["metadata"].get("generation", 0))


def condition_of(cluster: Manifest, kind: str) -> ConditionView | None:
    """One condition; None while it is not told."""
    entries = (cluster.get("status") or {}).get("conditions") or []
    return next((_condition(entry) for entry in entries if entry["type"] == kind), None)


def pod_view(pod: Manifest) -> PodView:
    metadata, status = pod["metadata"], pod.get("status") or {}
    marks = metadata.get("labels") or {}
    return PodView(
        name=metadata["name"],
        role=marks.get(labels.ROLE, ""),
        revision=marks.get(labels.REVISION, ""),
        phase=_phase(metadata, status),
        ready=is_ready(pod),
        drain=drain_state(pod),
        node=(pod.get("spec") or {}).get("nodeName", ""),
        restarts=sum(entry.get("restartCount", 0) for entry in status.get("containerStatuses") or []),
    )


def is_ready(pod: Manifest) -> bool:
    entries = (pod.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in entries)


def drain_state(pod: Manifest) -> DrainState:
    """From the marks on the pod; those of another pod of the same name do not count."""
    metadata = pod["metadata"]
    notes, uid = metadata.get("annotations") or {}, metadata["uid"]
    if notes.get(labels.DRAIN_UID) == uid:
        return DrainState.DRAINED if notes.get(labels.DRAINED) else DrainState.DRAINING
    return DrainState.ASKED if notes.get(labels.DRAIN) == uid else DrainState.NONE


def _phase(metadata: Manifest, status: Manifest) -> str:
    """As `kubectl get pods` tells it, the reason for waiting before the phase."""
    if "deletionTimestamp" in metadata:
        return "Terminating"
    for entry in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        if reason := entry.get("state", {}).get("waiting", {}).get("reason"):
            return str(reason)
    return str(status.get("reason") or status.get("phase", "Unknown"))


def _condition(entry: Manifest) -> ConditionView:
    words = (str(entry.get(key, "")) for key in ("reason", "message", "lastTransitionTime"))
    return ConditionView(entry["type"], entry["status"], *words)


def _role(entry: Manifest) -> RoleView:
    numbers = {key: int(entry.get(key, 0)) for key in ("desired", "effective", "ready", "updated", "draining")}
    return RoleView(entry["name"], **numbers, limited_by=str(entry.get("limitedBy", "")))


def _router(cluster: Manifest, pods: Iterable[PodView]) -> RoleView:
    wanted = int((cluster["spec"].get("router") or {}).get("replicas", 1))
    mine = [pod for pod in pods if pod.role == ROUTER]
    return RoleView(ROUTER, wanted, wanted, sum(pod.ready for pod in mine), len(mine), 0, "")


def _natural(name: str) -> tuple[str, int, str]:
    """Pod 10 after pod 9."""
    head, _, tail = name.rpartition("-")
    return (head, int(tail), "") if tail.isdigit() else (head, 0, tail)
