"""What the checks are made from, and what they say. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.resources import Manifest


class Verdict(StrEnum):
    OK = "OK"
    NOTE = "NOTE"
    """Cannot be told from the API server; a person should know."""
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Check:
    """`remedy`: what to do about it; empty when nothing has to be done."""

    name: str
    verdict: Verdict
    message: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """An object that was asked for. `allowed`: the caller may read it at all; only then does None mean missing."""

    manifest: Manifest | None = None
    allowed: bool = True


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One thing that a caller may be allowed to do. `needed_for`: the command that needs it."""

    verb: str
    group: str
    plural: str
    needed_for: str


RIGHTS = (
    Right("get", "pdcluster.dev", "pdclusters", "kubectl get"),
    Right("create", "pdcluster.dev", "pdclusters", "kubectl apply"),
    Right("patch", "pdcluster.dev", "pdclusters", "kubectl apply, pdc rollout"),
    Right("watch", "pdcluster.dev", "pdclusters", "pdc status --watch, pdc rollout status"),
    Right("list", "pdcluster.dev", "pdrolescalers", "pdc why"),
    Right("list", "", "pods", "pdc status, pdc why"),
    Right("watch", "", "pods", "pdc status --watch, pdc drain"),
    Right("patch", "", "pods", "pdc drain, pdc resume"),
    Right("list", "apps", "statefulsets", "pdc why"),
    Right("list", "apps", "controllerrevisions", "pdc rollout history, pdc rollout undo"),
    Right("list", "autoscaling", "horizontalpodautoscalers", "pdc why"),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """`nodes`, `pods` and `leases` are None when the caller may not list them; `cluster` when no manifest was given."""

    namespace: str
    place: Found
    """The namespace itself."""
    definitions: Mapping[str, Found]
    leases: tuple[Manifest, ...] | None
    now: float
    renewed: frozenset[str]
    """Namespaces of the Leases that were renewed while it was watched."""
    rights: Mapping[Right, bool]
    nodes: tuple[Manifest, ...] | None = None
    pods: tuple[Manifest, ...] | None = None
    metrics_api: Found = field(default_factory=Found)
    issuer_api: Found = field(default_factory=Found)
    cluster: PDCluster | None = None
    secrets: Mapping[str, Found] = field(default_factory=dict)
    claims: Mapping[str, Found] = field(default_factory=dict)
    accounts: Mapping[str, Found] = field(default_factory=dict)
    refusal: str | None = None
    """What the API server says against the manifest; None: nothing, or it was not asked."""
