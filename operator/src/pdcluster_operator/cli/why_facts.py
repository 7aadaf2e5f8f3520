"""What `pdc why` is answered from: the objects of one role, as they were read. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired.naming import group_name
from pdcluster_operator.resources import Manifest


class Cause(StrEnum):
    """What a sentence is about; the values are for programs."""

    OPERATOR_BEHIND = "OperatorBehind"
    INVALID = "Invalid"
    PAUSED = "Paused"
    STATIC = "Static"
    SCALER_MISSING = "ScalerMissing"
    SCALER = "Scaler"
    AUTOSCALER = "Autoscaler"
    AUTOSCALER_MISSING = "AutoscalerMissing"
    AUTOSCALER_BROKEN = "AutoscalerBroken"
    AUTOSCALER_LIMITED = "AutoscalerLimited"
    METRIC = "Metric"
    MIN = "Min"
    MAX = "Max"
    RATIO = "Ratio"
    GPU_BUDGET = "GPUBudget"
    ROLLOUT_FLOOR = "RolloutFloor"
    ROLLOUT = "Rollout"
    DRAINING = "Draining"
    HELD = "Drained"
    UNSCHEDULABLE = "Unschedulable"
    QUOTA = "Quota"
    POD_REFUSED = "PodRefused"
    NOT_RUNNING = "NotRunning"
    LOADING = "Loading"
    MISSING_PODS = "MissingPods"
    NOTHING = "Nothing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence. `limits`: it keeps the role from having what it asks for, rather than telling how that came."""

    cause: Cause
    text: str
    limits: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """`manifest` is the PDCluster as it was read, `cluster` the same as a typed model; absent objects are None."""

    role: str
    manifest: Manifest
    cluster: PDCluster
    scalers: Mapping[str, Manifest] = field(default_factory=dict)
    stateful_sets: Mapping[str, Manifest] = field(default_factory=dict)
    """By role, as the scalers."""
    autoscaler: Manifest | None = None
    pods: tuple[Manifest, ...] = ()
    """Of all roles."""
    events: tuple[Manifest, ...] = ()
    """Warnings about the role's StatefulSet."""

    @property
    def group(self) -> str:
        return group_name(self.cluster.metadata.name, self.role)
