"""Certificates for one run: made on the spot, kept in a private folder, gone with it."""

import datetime
from pathlib import Path

from pdcluster_operator.certificates import Authority
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired.naming import ROUTER, tls_identity
from pdcluster_operator.desired.pod import TLSPaths

LIFETIME = datetime.timedelta(days=365)


def write_certificates(cluster: PDCluster, folder: Path) -> dict[str, TLSPaths]:
    """A pair per role and the authority, in `folder`, which nobody else may read. By role."""
    now = datetime.datetime.now(datetime.UTC)
    name, namespace = cluster.metadata.name, cluster.metadata.namespace
    authority = Authority(f"{name}.{namespace}.pdcluster", now, LIFETIME)
    authority_file = _write(folder / "ca.crt", authority.certificate)
    paths = {}
    for role in (*cluster.spec.roles(), ROUTER):
        pair = authority.issue([tls_identity(role, name, namespace), "localhost"], ["127.0.0.1"], now, LIFETIME)
        certificate = _write(folder / f"{role}.crt", pair.certificate)
        paths[role] = TLSPaths(certificate, _write(folder / f"{role}.key", pair.key), authority_file)
    return paths


def _write(path: Path, data: bytes) -> str:
    path.touch(mode=0o600)
    path.write_bytes(data)
    return str(path)
