"""Which Secret holds a role's certificate, and what cert-manager is asked for where it makes them. Pure."""

from typing import Any

from pdcluster_operator.crd.cluster import ClusterSpec, PDCluster
from pdcluster_operator.crd.transport import TLS
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import ROUTER, group_name, tls_identity

Manifest = dict[str, Any]

OPERATOR = "operator"
"""The role by which the operator calls workers."""


def pod_roles(spec: ClusterSpec) -> tuple[str, ...]:
    """Whose pods have a certificate."""
    return (*spec.roles(), ROUTER)


def authority_secret(cluster: str) -> str:
    """Of the operator's own authority."""
    return f"{cluster}-ca"


def certificate_secret(cluster: str, tls: TLS, role: str) -> str:
    """The Secret with a role's certificate: the user's for all, cert-manager's or the operator's for each.

    The two have different names: a cluster that changes from one to the other has pods of both for a while.
    """
    if tls.secret_name:
        return tls.secret_name
    return f"{group_name(cluster, role)}-{'cert' if tls.issuer_ref else 'tls'}"


def certificates(cluster: PDCluster) -> list[Manifest]:
    """What cert-manager is to issue: one for each role, and one for the operator; nothing without an issuer."""
    issuer, metadata = cluster.spec.tls.issuer_ref, cluster.metadata
    if issuer is None:
        return []
    return [
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": {
                "name": certificate_secret(metadata.name, cluster.spec.tls, role),
                "labels": {labels.ROLE: role},
            },
            "spec": {
                "secretName": certificate_secret(metadata.name, cluster.spec.tls, role),
                "secretTemplate": {"labels": {labels.CLUSTER: metadata.name, labels.ROLE: role}},
                "dnsNames": [tls_identity(role, metadata.name, metadata.namespace)],
                "usages": ["digital signature", "server auth", "client auth"],
                "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                "issuerRef": {"group": "cert-manager.io", "kind": issuer.kind.value, "name": issuer.name},
            },
        }
        for role in (*pod_roles(cluster.spec), OPERATOR)
    ]
