"""The smaller parts of the spec: rollout, drain, disruption, security, topology, observability."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel, rule
from pdcluster_operator.crd.values import ObjectName, QualifiedName, Seconds, StringMap, Text


class RolloutStrategy(StrEnum):
    LOCKSTEP = "Lockstep"


class TopologyMode(StrEnum):
    NONE = "None"
    PREFERRED = "Preferred"
    REQUIRED = "Required"


class Rollout(SpecModel):
    strategy: Annotated[
        RolloutStrategy,
        Field(description="Lockstep: pod by pod, drained first, without spare GPUs, both roles together"),
    ] = RolloutStrategy.LOCKSTEP
    paused: Annotated[bool, Field(description="no pod is replaced while true")] = False
    progress_deadline_seconds: Annotated[Seconds, Field(description="without progress for so long: Degraded")] = 1800


class Drain(SpecModel):
    timeout_seconds: Annotated[Seconds, Field(description="longest wait for a leaving pod's requests")] = 300


class Disruption(SpecModel):
    pdb: Annotated[bool, Field(description="make PodDisruptionBudgets")] = True
    max_unavailable: Annotated[int, Field(ge=1, le=1000, description="pods of a role evicted at once")] = 1


class Caller(SpecModel):
    """Pods that may call the router or scrape metrics: of these namespaces, with these labels."""

    namespace_labels: StringMap | None = None
    pod_labels: StringMap | None = None


class Security(SpecModel):
    service_account_name: Annotated[ObjectName | None, Field(description="absent: one is made for the router")] = None
    network_policy: Annotated[bool, Field(description="make NetworkPolicies")] = True
    allow_from: Annotated[
        tuple[Caller, ...], Field(max_length=16, description="who may call the router; empty: everybody")
    ] = ()


class Topology(SpecModel):
    """Whether pods of one cluster should lie together."""

    mode: TopologyMode = TopologyMode.NONE
    key: Annotated[QualifiedName | None, Field(description="a node label, such as topology.kubernetes.io/zone")] = None

    @rule("self.mode == 'None' || has(self.key)", "is required unless mode is None", field="key")
    def has_key(self) -> bool:
        return self.mode is TopologyMode.NONE or self.key is not None


class PodMonitor(SpecModel):
    enabled: Annotated[bool, Field(description="make a PodMonitor, where the cluster knows that kind")] = False
    labels: StringMap | None = None
    interval: Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m)$", max_length=16)] = "10s"


class Tracing(SpecModel):
    endpoint: Annotated[Text, Field(description="URL of an OpenTelemetry collector (gRPC)")]


class Observability(SpecModel):
    pod_monitor: PodMonitor = PodMonitor()
    tracing: Tracing | None = None
