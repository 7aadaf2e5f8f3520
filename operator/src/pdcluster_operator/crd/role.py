"""RoleSpec: the pods of `prefill`, `decode` or `mixed`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel, rule
from pdcluster_operator.crd.engine import EngineOverrides
from pdcluster_operator.crd.scaling import Scaling, ScalingMode
from pdcluster_operator.crd.values import (
    Count,
    EnvironmentName,
    ObjectName,
    Overlay,
    QualifiedName,
    Quantity,
    QuantityMap,
    Seconds,
    StringMap,
)


class TolerationOperator(StrEnum):
    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class GPU(SpecModel):
    count: Annotated[int, Field(ge=0, le=64, description="GPUs of one pod; 0 makes a CPU worker")] = 1
    resource_name: Annotated[QualifiedName, Field(description="the node's resource")] = "nvidia.com/gpu"


class Parallelism(SpecModel):
    """Ranks of one worker."""

    tensor: Annotated[int, Field(ge=1, le=64)] = 1
    pipeline: Annotated[int, Field(ge=1, le=64)] = 1
    data: Annotated[int, Field(ge=1, le=64)] = 1

    @property
    def ranks(self) -> int:
        return self.tensor * self.pipeline * self.data

    @rule("self.tensor == 1", "parallelism above 1 is not supported: only 1", field="tensor")
    def tensor_is_one(self) -> bool:
        return self.tensor == 1

    @rule("self.pipeline == 1", "parallelism above 1 is not supported: only 1", field="pipeline")
    def pipeline_is_one(self) -> bool:
        return self.pipeline == 1

    @rule("self.data == 1", "parallelism above 1 is not supported: only 1", field="data")
    def data_is_one(self) -> bool:
        return self.data == 1


class Resources(SpecModel):
    """As of a container. `limits.cpu` sets the worker's threads and, in local mode, the cores it may use."""

    requests: QuantityMap | None = None
    limits: QuantityMap | None = None


class EnvironmentVariable(SpecModel):
    name: EnvironmentName
    value: Annotated[str, Field(max_length=4096)] = ""


class Toleration(SpecModel):
    key: QualifiedName | None = None
    operator: TolerationOperator | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: TaintEffect | None = None
    toleration_seconds: Seconds | None = None


class TemplateMetadata(SpecModel):
    labels: StringMap | None = None
    annotations: StringMap | None = None


class PodTemplate(SpecModel):
    """Laid over the generated pod: maps merge, lists merge by the keys that Kubernetes uses. Not used in local mode."""

    metadata: TemplateMetadata | None = None
    spec: Annotated[Overlay | None, Field(description="fields of a PodSpec")] = None


class Role(SpecModel):
    replicas: Annotated[
        Count | None, Field(description="pods, when scaling is Static; absent: as many as there are, 1 at first")
    ] = None
    scaling: Scaling = Scaling()
    parallelism: Parallelism = Parallelism()
    pods_per_replica: Annotated[int, Field(ge=1, le=64, description="1")] = 1
    gpu: GPU = GPU()
    engine: EngineOverrides | None = None
    resources: Resources | None = None
    shared_memory: Annotated[Quantity, Field(description="size of /dev/shm; it counts against the memory limit")] = (
        "8Gi"
    )
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=64)] = ()
    node_selector: StringMap | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=16)] = ()
    runtime_class_name: ObjectName | None = None
    priority_class_name: ObjectName | None = None
    termination_grace_period_seconds: Annotated[
        Seconds | None, Field(description="absent: drain.timeoutSeconds + 30")
    ] = None
    pod_template: PodTemplate | None = None

    @property
    def first_replicas(self) -> int:
        """The number of pods to begin with."""
        if self.scaling.mode is not ScalingMode.STATIC:
            return self.scaling.min_replicas
        return 1 if self.replicas is None else self.replicas

    @rule(
        "!has(self.replicas) || self.scaling.mode == 'Static'",
        "must be absent unless scaling.mode is Static: the autoscaler sets the number",
        field="replicas",
    )
    def replicas_have_one_writer(self) -> bool:
        return self.replicas is None or self.scaling.mode is ScalingMode.STATIC

    @rule("self.podsPerReplica == 1", "more than one pod per replica is not supported: only 1", field="podsPerReplica")
    def replica_is_one_pod(self) -> bool:
        return self.pods_per_replica == 1

    @rule(
        "self.gpu.count == 0 || self.gpu.count * self.podsPerReplica"
        " == self.parallelism.tensor * self.parallelism.pipeline * self.parallelism.data",
        "must be 0 (a CPU worker) or such that count * podsPerReplica is the product of parallelism",
        field="gpu.count",
    )
    def gpus_match_parallelism(self) -> bool:
        return self.gpu.count in (0, self.parallelism.ranks / self.pods_per_replica)
