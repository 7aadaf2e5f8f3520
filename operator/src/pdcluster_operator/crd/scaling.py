"""`scaling` of a role, and `scalingPolicy` that binds the roles together."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel, rule
from pdcluster_operator.crd.values import Count, DecimalText


class ScalingMode(StrEnum):
    STATIC = "Static"
    EXTERNAL = "External"
    MANAGED = "Managed"


class Coordination(StrEnum):
    BOUNDED = "Bounded"
    INDEPENDENT = "Independent"


class Targets(SpecModel):
    """What one replica of a Managed role should carry. Prefill is a rate, decode an occupancy."""

    queue_seconds: Annotated[DecimalText | None, Field(description="prefill, mixed: seconds of queued prompts")] = None
    kv_usage: Annotated[DecimalText | None, Field(description="decode, mixed: used share of the KV cache")] = None
    running_per_replica: Annotated[
        int | None, Field(ge=1, le=1 << 16, description="decode, mixed: running requests")
    ] = None


class Behavior(SpecModel):
    """How fast a Managed role follows its metrics: up at once, down one by one."""

    scale_up_stabilization_seconds: Annotated[
        int, Field(ge=0, le=3600, description="growing waits until it was wanted for so long")
    ] = 15
    scale_down_stabilization_seconds: Annotated[
        int, Field(ge=0, le=3600, description="shrinking waits so long; longer than a worker takes to load its model")
    ] = 300
    scale_down_period_seconds: Annotated[
        int, Field(ge=1, le=1800, description="one pod fewer in so many seconds: it must drain first")
    ] = 120


class Scaling(SpecModel):
    mode: Annotated[
        ScalingMode,
        Field(
            description="Static: replicas; External: an autoscaler of yours on the PDRoleScaler; Managed: one is made"
        ),
    ] = ScalingMode.STATIC
    min_replicas: Annotated[int, Field(ge=1, le=1000, description="never fewer, unless Static")] = 1
    max_replicas: Annotated[int | None, Field(ge=1, le=1000, description="never more; required unless Static")] = None
    targets: Targets | None = None
    behavior: Behavior | None = None

    @rule("self.mode == 'Static' || has(self.maxReplicas)", "is required unless mode is Static", field="maxReplicas")
    def has_maximum(self) -> bool:
        return self.mode is ScalingMode.STATIC or self.max_replicas is not None

    @rule(
        "!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
        "must not be above maxReplicas",
        field="minReplicas",
    )
    def is_ordered(self) -> bool:
        return self.max_replicas is None or self.min_replicas <= self.max_replicas

    @rule("!has(self.targets) || self.mode == 'Managed'", "have an effect only in mode Managed", field="targets")
    def targets_are_used(self) -> bool:
        return self.targets is None or self.mode is ScalingMode.MANAGED

    @rule("!has(self.behavior) || self.mode == 'Managed'", "has an effect only in mode Managed", field="behavior")
    def behavior_is_used(self) -> bool:
        return self.behavior is None or self.mode is ScalingMode.MANAGED


class Ratio(SpecModel):
    """Bounds of prefill replicas divided by decode replicas."""

    min: Annotated[DecimalText | None, Field(description="as a decimal number in quotes: '0.5'")] = None
    max: Annotated[DecimalText | None, Field(description="as a decimal number in quotes: '2'")] = None

    @rule(
        "!has(self.min) || !has(self.max) || double(self.min) <= double(self.max)",
        "must not be above max",
        field="min",
    )
    def is_ordered(self) -> bool:
        return self.min is None or self.max is None or Decimal(self.min) <= Decimal(self.max)


class ScalingPolicy(SpecModel):
    coordination: Annotated[
        Coordination, Field(description="Bounded: the ratio is kept; Independent: each role for itself")
    ] = Coordination.BOUNDED
    ratio: Ratio | None = None
    max_gpus: Annotated[
        Count | None, Field(alias="maxGPUs", description="GPUs of all pods together, leaving ones included")
    ] = None
