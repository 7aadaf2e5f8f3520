"""PDCluster: the whole manifest, and the rules between its parts."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pdcluster_operator.crd.base import SpecModel, rule, transition
from pdcluster_operator.crd.engine import Engine
from pdcluster_operator.crd.model import Model
from pdcluster_operator.crd.policies import Disruption, Drain, Observability, Rollout, Security, Topology
from pdcluster_operator.crd.role import Role
from pdcluster_operator.crd.router import Router
from pdcluster_operator.crd.scaling import ScalingMode, ScalingPolicy
from pdcluster_operator.crd.transport import TLS, Transport
from pdcluster_operator.crd.values import CLUSTER_NAME, Label

GROUP = "pdcluster.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

_BOTH = "!has(self.prefill) || !has(self.decode)"
_SHORTEST_GRACE = "self.drain.timeoutSeconds + 30"
_GRACE = "must be at least drain.timeoutSeconds + 30"


def _effective(role: str, field: str) -> str:
    own = f"self.{role}.engine"
    return f"(has({own}) && has({own}.{field}) ? {own}.{field} : self.engine.{field})"


def _equal_in_pairs(field: str) -> str:
    return f"{_BOTH} || {_effective('prefill', field)} == {_effective('decode', field)}"


def _zero(role: str) -> str:
    return f"(has(self.{role}.replicas) && self.{role}.replicas == 0)"


def _static_gpus(role: str) -> str:
    number = f"(has(self.{role}.replicas) ? self.{role}.replicas : 1)"
    return f"(has(self.{role}) && self.{role}.scaling.mode == 'Static' ? self.{role}.gpu.count * {number} : 0)"


def _lacks_target(role: str, field: str) -> str:
    scaling = f"self.{role}.scaling"
    return f"!has(self.{role}) || !has({scaling}.targets) || !has({scaling}.targets.{field})"


def _grace_is_enough(role: str) -> str:
    grace = f"self.{role}.terminationGracePeriodSeconds"
    return f"!has(self.{role}) || !has({grace}) || {grace} >= {_SHORTEST_GRACE}"


def _different(field: str) -> str:
    return f"must be equal in roles that pair: spec.prefill.engine.{field} and spec.decode.engine.{field} differ"


class ClusterSpec(SpecModel):
    paused: Annotated[bool, Field(description="the operator changes nothing but the status")] = False
    model: Model
    engine: Engine = Engine()
    prefill: Annotated[Role | None, Field(description="workers that compute prompts")] = None
    decode: Annotated[Role | None, Field(description="workers that generate tokens")] = None
    mixed: Annotated[Role | None, Field(description="workers that do both")] = None
    router: Router = Router()
    transport: Transport = Transport()
    tls: TLS = TLS()
    scaling_policy: ScalingPolicy = ScalingPolicy()
    rollout: Rollout = Rollout()
    drain: Drain = Drain()
    disruption: Disruption = Disruption()
    security: Security = Security()
    topology: Topology = Topology()
    observability: Observability = Observability()

    def roles(self) -> dict[str, Role]:
        """The worker roles that exist, by name, in a fixed order."""
        found = {"prefill": self.prefill, "decode": self.decode, "mixed": self.mixed}
        return {name: role for name, role in found.items() if role is not None}

    def engine_of(self, role: Role) -> Engine:
        return self.engine.overridden(role.engine)

    @rule(
        "has(self.decode) || !has(self.prefill)",
        "is required beside prefill: a cluster has prefill with decode, mixed alone, or all three",
        field="decode",
    )
    def prefill_has_decode(self) -> bool:
        return self.decode is not None or self.prefill is None

    @rule(
        "has(self.prefill) || !has(self.decode)",
        "is required beside decode: a cluster has prefill with decode, mixed alone, or all three",
        field="prefill",
    )
    def decode_has_prefill(self) -> bool:
        return self.prefill is not None or self.decode is None

    @rule(
        "has(self.prefill) || has(self.decode) || has(self.mixed)",
        "a cluster has prefill with decode, mixed alone, or all three; here is none",
        field="prefill",
    )
    def has_a_role(self) -> bool:
        return bool(self.roles())

    @rule(_equal_in_pairs("blockSize"), _different("blockSize"), field="prefill.engine.blockSize")
    def block_sizes_are_equal(self) -> bool:
        pair = self._pair()
        return pair is None or self.engine_of(pair[0]).block_size == self.engine_of(pair[1]).block_size

    @rule(_equal_in_pairs("dtype"), _different("dtype"), field="prefill.engine.dtype")
    def dtypes_are_equal(self) -> bool:
        pair = self._pair()
        return pair is None or self.engine_of(pair[0]).dtype is self.engine_of(pair[1]).dtype

    @rule(
        f"{_BOTH} || self.prefill.scaling.mode != 'Static' || self.decode.scaling.mode != 'Static'"
        f" || {_zero('prefill')} == {_zero('decode')}",
        "prefill and decode are 0 together or not at all",
        field="prefill.replicas",
    )
    def pair_is_zero_together(self) -> bool:
        pair = self._pair()
        if pair is None or any(role.scaling.mode is not ScalingMode.STATIC for role in pair):
            return True
        return (pair[0].replicas == 0) == (pair[1].replicas == 0)

    @rule(_lacks_target("prefill", "kvUsage"), "is no target of prefill", field="prefill.scaling.targets.kvUsage")
    def prefill_lacks_kv_usage(self) -> bool:
        targets = self.prefill and self.prefill.scaling.targets
        return not targets or targets.kv_usage is None

    @rule(
        _lacks_target("prefill", "runningPerReplica"),
        "is no target of prefill",
        field="prefill.scaling.targets.runningPerReplica",
    )
    def prefill_lacks_running(self) -> bool:
        targets = self.prefill and self.prefill.scaling.targets
        return not targets or targets.running_per_replica is None

    @rule(
        _lacks_target("decode", "queueSeconds"), "is no target of decode", field="decode.scaling.targets.queueSeconds"
    )
    def decode_lacks_queue_seconds(self) -> bool:
        targets = self.decode and self.decode.scaling.targets
        return not targets or targets.queue_seconds is None

    @rule(_grace_is_enough("prefill"), _GRACE, field="prefill.terminationGracePeriodSeconds")
    def prefill_has_grace(self) -> bool:
        return self._has_grace(self.prefill)

    @rule(_grace_is_enough("decode"), _GRACE, field="decode.terminationGracePeriodSeconds")
    def decode_has_grace(self) -> bool:
        return self._has_grace(self.decode)

    @rule(_grace_is_enough("mixed"), _GRACE, field="mixed.terminationGracePeriodSeconds")
    def mixed_has_grace(self) -> bool:
        return self._has_grace(self.mixed)

    @rule(
        "!has(self.scalingPolicy.maxGPUs) || self.scalingPolicy.maxGPUs >= "
        + " + ".join(_static_gpus(role) for role in ("prefill", "decode", "mixed")),
        "is less than the Static roles need",
        field="scalingPolicy.maxGPUs",
    )
    def static_roles_fit(self) -> bool:
        static = [role for role in self.roles().values() if role.scaling.mode is ScalingMode.STATIC]
        budget = self.scaling_policy.max_gpus
        return budget is None or budget >= sum(role.gpu.count * role.first_replicas for role in static)

    @transition("self.model.name == oldSelf.model.name", "is immutable: clients ask for it", field="model.name")
    def keeps_model_name(self, old: "ClusterSpec") -> bool:
        return self.model.name == old.model.name

    @transition(
        "self.transport.kv.protocol == oldSelf.transport.kv.protocol", "is immutable", field="transport.kv.protocol"
    )
    def keeps_protocol(self, old: "ClusterSpec") -> bool:
        return self.transport.kv.protocol is old.transport.kv.protocol

    def _pair(self) -> tuple[Role, Role] | None:
        return None if self.prefill is None or self.decode is None else (self.prefill, self.decode)

    def _has_grace(self, role: Role | None) -> bool:
        grace = None if role is None else role.termination_grace_period_seconds
        return grace is None or grace >= self.drain.timeout_seconds + 30


class Metadata(SpecModel):
    """What is used of an object's metadata; the rest is the API server's."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(pattern=CLUSTER_NAME, max_length=40)]
    namespace: Label = "default"
    uid: Annotated[str, Field(max_length=64)] = ""
    generation: int = 0


class PDCluster(SpecModel):
    """`status` is the operator's: it is accepted in a manifest, as the API server does, and not read."""

    api_version: Literal["pdcluster.dev/v1alpha1"]
    kind: Literal["PDCluster"]
    metadata: Metadata
    spec: ClusterSpec
    status: Annotated[dict[str, object] | None, Field(exclude=True)] = None
