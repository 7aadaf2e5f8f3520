"""What a decision is made from, and what it consists of. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired.kubernetes_network import Origin
from pdcluster_operator.desired.kubernetes_pod import Release
from pdcluster_operator.observe import Child, Pod, WorkloadFacts
from pdcluster_operator.reconcile.rotation import DEFAULT_PERIODS, Periods, Turn
from pdcluster_operator.resources import ObjectKey
from pdcluster_operator.scaling.policy import Limit, Target

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Situation:
    """One PDCluster and all that exists of it. `drained` holds the uids of pods that told they are empty."""

    cluster: PDCluster
    children: Mapping[ObjectKey, Child]
    pods: tuple[Pod, ...]
    drained: frozenset[str]
    now: float
    release: Release
    origin: Origin
    periods: Periods = DEFAULT_PERIODS
    user_certificate: CertificateFacts | None = None
    """What is in the Secret that the spec names; None when it was not looked at."""
    absent: frozenset[str] = frozenset()
    """Kinds of other projects that this API server does not have."""
    linked: Mapping[str, bool] = field(default_factory=dict)
    """By the uid of a worker's pod: whether it reaches a peer to move KV blocks to or from; absent: not known."""
    unmade: Mapping[str, str] = field(default_factory=dict)
    """By the uid of a StatefulSet that lacks pods: why its controller could not make them."""

    def child(self, kind: str, name: str) -> Child | None:
        """The cluster's own object of that name; a foreign one does not count."""
        found = self.children.get(ObjectKey(kind, self.cluster.metadata.namespace, name))
        return found if found and found.owner == self.cluster.metadata.uid else None

    def workload(self, kind: str, name: str) -> WorkloadFacts | None:
        """The facts of a StatefulSet or Deployment that is not about to go."""
        found = self.child(kind, name)
        facts = found.facts if found and not found.leaving else None
        return facts if isinstance(facts, WorkloadFacts) else None

    def pods_of(self, role: str) -> tuple[Pod, ...]:
        return tuple(sorted((pod for pod in self.pods if pod.role == role), key=lambda pod: pod.ordinal))


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply. `only_create`: conflict if it exists; `version`: conflict if it changed since."""

    manifest: Manifest
    only_create: bool = False
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Create:
    """POST; one that exists already is left alone."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Delete:
    child: Child


@dataclass(frozen=True, slots=True)
class Adopt:
    """Makes the cluster the owner of a Secret that has none; what it holds is left as it is."""

    child: Child


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Marks the pod as draining until the deadline and tells the worker; a pod that is marked is told again.

    `afresh`: it was empty once, and its worker has been restarted since.
    """

    pod: Pod
    deadline: float
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class NoteDrained:
    """Marks a pod that was drained on request as empty."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class StopDrain:
    """Tells the worker to go on and removes the marks."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class IssueCertificates:
    """Makes certificates for these roles; `is_first`: and the cluster's own authority, which is not there yet."""

    roles: tuple[str, ...]
    is_first: bool = False


@dataclass(frozen=True, slots=True)
class TurnAuthority:
    """A step of the authority's rotation, decided on this version of its Secret."""

    turn: Turn
    version: str


Action = Apply | Create | Delete | Adopt | StartDrain | StopDrain | NoteDrained | IssueCertificates | TurnAuthority


@dataclass(frozen=True, slots=True)
class Note:
    """Something to be told once, as an event's reason and note, when the turn's actions are done."""

    reason: str
    text: str


class RolloutPhase(StrEnum):
    COMPLETE = "Complete"
    ROLLING = "Rolling"
    PAUSED = "Paused"
    STALLED = "Stalled"


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where a change of the pods' revision stands. `gap`: no pair serves while both single pods are replaced."""

    phase: RolloutPhase
    target: str
    current: str
    updated: int = 0
    total: int = 0
    gap: bool = False
    stalls_at: float | None = None
    """When it counts as stalled if nothing changes until then."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that makes the cluster Degraded, as a condition's reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class RoleNumbers:
    """One role as the status shows it."""

    target: Target
    replicas: int
    """Of the StatefulSet, as it will be after this turn."""
    existing: int
    ready: int
    updated: int
    draining: int
    limited_by: Limit
    held: int = 0
    """Of the draining ones, those that are empty and out of service because a person asked for it."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done now, in order, and what is to be told; `wake_after` seconds without an event."""

    actions: tuple[Action, ...]
    roles: Mapping[str, RoleNumbers]
    rollout: Rollout
    troubles: tuple[Trouble, ...] = ()
    wake_after: float | None = None
    notes: tuple[Note, ...] = ()
    pending_certificates: str = ""
    """What pods wait for before they can start; empty: nothing."""
