"""Certificates of one PDCluster in Secrets: an authority of its own, and a leaf for every role. No key is elsewhere."""

import base64
from datetime import UTC, datetime, timedelta

from pdcluster_operator.certificates import Authority, Pair
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes import owned
from pdcluster_operator.desired.naming import group_name, tls_identity
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.resources import SECRET, Manifest

AUTHORITY_LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=365)
OPERATOR_LIFETIME = timedelta(hours=1)


class CertificateError(OperatorError):
    """The Secret of a cluster's authority holds something else."""


async def issue(kube: Kube, cluster: PDCluster, roles: tuple[str, ...]) -> list[Manifest]:
    """Makes what is missing; returns the Secrets as the API server has them."""
    authority, made = await _authority(kube, cluster)
    now, metadata = datetime.now(UTC), cluster.metadata
    for role in roles:
        identity = tls_identity(role, metadata.name, metadata.namespace)
        leaf = authority.issue([identity], [], now, LEAF_LIFETIME)
        name = f"{group_name(metadata.name, role)}-tls"
        made.append(await kube.apply(_secret(cluster, name, role, leaf, authority.certificate)))
    return made


async def operator_pair(kube: Kube, cluster: PDCluster) -> tuple[Pair, bytes]:
    """A short-lived certificate by which the operator calls this cluster's workers, and the authority to trust."""
    authority, _ = await _authority(kube, cluster)
    identity = tls_identity("operator", cluster.metadata.name, cluster.metadata.namespace)
    return authority.issue([identity], [], datetime.now(UTC), OPERATOR_LIFETIME), authority.certificate


async def _authority(kube: Kube, cluster: PDCluster) -> tuple[Authority, list[Manifest]]:
    """The cluster's authority, and the Secret if it was made just now; of two that make it at once, one wins."""
    name = f"{cluster.metadata.name}-ca"
    found = await kube.get(SECRET, cluster.metadata.namespace, name)
    if found is not None:
        return _restored(found), []
    fresh = Authority(f"{cluster.metadata.namespace}/{cluster.metadata.name}", datetime.now(UTC), AUTHORITY_LIFETIME)
    manifest = _secret(cluster, name, "ca", fresh.pair(), fresh.certificate)
    try:
        return fresh, [await kube.apply(manifest, only_create=True)]
    except KubeError as error:
        found = await kube.get(SECRET, cluster.metadata.namespace, name) if error.is_conflict else None
        if found is None:
            raise
        return _restored(found), []


def _restored(secret: Manifest) -> Authority:
    try:
        data = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        return Authority.restored(Pair(data["tls.crt"], data["tls.key"]))
    except (KeyError, ValueError) as error:
        name = f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"
        raise CertificateError(f"Secret {name} holds no authority: {error}") from error


def _secret(cluster: PDCluster, name: str, role: str, pair: Pair, trust: bytes) -> Manifest:
    content = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": trust}
    return owned(
        cluster,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "labels": {labels.ROLE: role}},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
        },
    )
