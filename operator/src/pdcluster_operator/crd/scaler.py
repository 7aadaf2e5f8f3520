"""PDRoleScaler: the scale subresource of one role, so that any autoscaler can drive it."""

from typing import Annotated, Literal

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel, transition
from pdcluster_operator.crd.cluster import Metadata
from pdcluster_operator.crd.values import CLUSTER_NAME, Count


class ScalerSpec(SpecModel):
    """Made by the operator, one per role that is not Static. The first number is the live one."""

    cluster: Annotated[str, Field(pattern=CLUSTER_NAME, max_length=40, description="the PDCluster")]
    role: Annotated[Literal["prefill", "decode", "mixed"], Field(description="its role")]
    replicas: Annotated[Count, Field(description="what the autoscaler asks for; there is no default on purpose")]

    @transition("self.cluster == oldSelf.cluster", "is immutable", field="cluster")
    def keeps_cluster(self, old: "ScalerSpec") -> bool:
        return self.cluster == old.cluster

    @transition("self.role == oldSelf.role", "is immutable", field="role")
    def keeps_role(self, old: "ScalerSpec") -> bool:
        return self.role == old.role


class ScalerMetadata(Metadata):
    name: Annotated[str, Field(max_length=63)]


class PDRoleScaler(SpecModel):
    api_version: Literal["pdcluster.dev/v1alpha1"]
    kind: Literal["PDRoleScaler"]
    metadata: ScalerMetadata
    spec: ScalerSpec
    status: Annotated[dict[str, object] | None, Field(exclude=True)] = None
