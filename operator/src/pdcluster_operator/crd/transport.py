"""`transport` and `tls`: how pods reach each other."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from pdcluster_operator.crd.base import SpecModel, rule
from pdcluster_operator.crd.values import ObjectName, QualifiedName


class KVProtocol(StrEnum):
    RDMA = "RDMA"
    TCP = "TCP"
    IPC = "IPC"


class TLSMode(StrEnum):
    MTLS = "MTLS"
    DISABLED = "Disabled"


class IssuerKind(StrEnum):
    ISSUER = "Issuer"
    CLUSTER_ISSUER = "ClusterIssuer"


class RDMA(SpecModel):
    resource_name: Annotated[QualifiedName, Field(description="the node's resource")] = "rdma/hca"
    count: Annotated[int, Field(ge=1, le=16, description="devices of one pod")] = 1


class KVTransport(SpecModel):
    protocol: Annotated[
        KVProtocol,
        Field(
            description="RDMA, TCP, or IPC: shared memory, for pods of one machine in local mode (a cluster uses TCP)"
        ),
    ] = KVProtocol.RDMA
    rdma: Annotated[RDMA | None, Field(description="only with protocol RDMA; absent: one rdma/hca")] = None

    @rule("!has(self.rdma) || self.protocol == 'RDMA'", "has an effect only with protocol RDMA", field="rdma")
    def rdma_is_used(self) -> bool:
        return self.rdma is None or self.protocol is KVProtocol.RDMA


class Transport(SpecModel):
    kv: KVTransport = KVTransport()


class IssuerReference(SpecModel):
    name: ObjectName
    kind: IssuerKind = IssuerKind.ISSUER


class TLS(SpecModel):
    """Mutual TLS between pods. With neither secretName nor issuerRef the operator keeps a CA of its own per cluster."""

    mode: Annotated[TLSMode, Field(description="local mode: only when the manifest says MTLS")] = TLSMode.MTLS
    secret_name: Annotated[ObjectName | None, Field(description="a Secret with ca.crt, tls.crt and tls.key")] = None
    issuer_ref: Annotated[IssuerReference | None, Field(description="a cert-manager issuer")] = None

    @rule(
        "!(has(self.secretName) && has(self.issuerRef))",
        "at most one of secretName and issuerRef may be set",
        field="secretName",
    )
    def has_one_origin(self) -> bool:
        return self.secret_name is None or self.issuer_ref is None

    @rule(
        "self.mode == 'MTLS' || !(has(self.secretName) || has(self.issuerRef))",
        "Disabled leaves no use for secretName and issuerRef",
        field="mode",
    )
    def origin_is_used(self) -> bool:
        return self.mode is TLSMode.MTLS or (self.secret_name is None and self.issuer_ref is None)
