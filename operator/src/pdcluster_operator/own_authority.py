"""A cluster's own authority as it lies in its Secret, and what each step of its rotation makes of it.

tls.crt, tls.key    the authority that signs
ca.crt              the authorities that pods trust: what every leaf's Secret carries along
next.crt, next.key  the one that will sign, once every pod trusts it
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from pdcluster_operator.certificates import Authority, Pair
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes import owned
from pdcluster_operator.desired.kubernetes_tls import authority_secret, certificate_secret
from pdcluster_operator.desired.naming import tls_identity
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.reconcile.rotation import Periods, Phase, Turn
from pdcluster_operator.resources import Manifest

Files = Mapping[str, bytes]

LONGEST_NAME = 48


class CertificateError(OperatorError):
    """A Secret that should hold certificates holds something else, or is not there.

    `condition` is the reason by which it is told.
    """

    condition = "CertificatesBroken"


class ForeignSecretError(CertificateError):
    """A Secret of the name is somebody else's."""

    condition = "NameConflict"


def made(cluster: PDCluster, periods: Periods, now: float) -> Manifest:
    """The Secret of a new authority."""
    pair = _fresh(cluster, periods, now)
    return _authority(cluster, _files(pair, pair.certificate), Phase.STEADY, now)


def turned(cluster: PDCluster, secret: Manifest, turn: Turn, periods: Periods, now: float) -> Manifest:
    """The Secret after one step. Raises CertificateError when it holds no authority."""
    files, signer = files_of(secret), signer_of(secret).pair()
    following = _next(files)
    if turn is Turn.RETIRE:
        return _authority(cluster, _files(signer, signer.certificate), Phase.STEADY, now)
    if turn is Turn.RESTART:
        pair = following or _fresh(cluster, periods, now)
        return _authority(cluster, _files(pair, pair.certificate), Phase.STEADY, now)
    if turn is Turn.PROMOTE and following:
        bundle = signer.certificate + following.certificate
        return _authority(cluster, _files(following, bundle), Phase.REPLACING, now)
    pair = _fresh(cluster, periods, now)
    content = _files(signer, signer.certificate + pair.certificate)
    content |= {"next.crt": pair.certificate, "next.key": pair.key}
    return _authority(cluster, content, Phase.TRUSTING, now)


def leaf(cluster: PDCluster, role: str, secret: Manifest, periods: Periods, now: float) -> Manifest:
    """The Secret of a role's new certificate, by the authority in `secret`; it does not outlive that one."""
    name = certificate_secret(cluster.metadata.name, cluster.spec.tls, role)
    content = _files(_issued(cluster, role, secret, periods.leaf, now), files_of(secret)["ca.crt"])
    return _secret(cluster, name, role, content, {})


def caller(cluster: PDCluster, role: str, secret: Manifest, seconds: float, now: float) -> tuple[Pair, bytes]:
    """A certificate that no Secret holds, and whom to trust."""
    return _issued(cluster, role, secret, seconds, now), files_of(secret)["ca.crt"]


def signer_of(secret: Manifest) -> Authority:
    """Raises CertificateError when the Secret holds no authority."""
    try:
        files = files_of(secret)
        return Authority.restored(Pair(files["tls.crt"], files["tls.key"]))
    except (KeyError, ValueError) as error:
        name = f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"
        raise CertificateError(f"Secret {name} holds no authority: {error}") from error


def files_of(secret: Manifest) -> dict[str, bytes]:
    """What a Secret holds."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def _issued(cluster: PDCluster, role: str, secret: Manifest, seconds: float, now: float) -> Pair:
    signer, moment = signer_of(secret), datetime.fromtimestamp(now, UTC)
    lifetime = min(timedelta(seconds=seconds), signer.not_after - moment)
    identity = tls_identity(role, cluster.metadata.name, cluster.metadata.namespace)
    return signer.issue([identity], [], moment, lifetime)


def _fresh(cluster: PDCluster, periods: Periods, now: float) -> Pair:
    """Named by its time too, so that no two authorities of a cluster have the same name."""
    moment = datetime.fromtimestamp(now, UTC)
    name = f"{cluster.metadata.namespace}/{cluster.metadata.name}"[:LONGEST_NAME]
    return Authority(f"{name} {moment:%Y%m%d%H%M%S}", moment, timedelta(seconds=periods.authority)).pair()


def _next(files: Files) -> Pair | None:
    if not (files.get("next.crt") and files.get("next.key")):
        return None
    pair = Pair(files["next.crt"], files["next.key"])
    try:
        Authority.restored(pair)
    except ValueError:
        return None
    return pair


def _files(pair: Pair, trust: bytes) -> dict[str, bytes]:
    return {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": trust}


def _authority(cluster: PDCluster, content: Files, phase: Phase, now: float) -> Manifest:
    notes = {labels.ROTATION: phase.value, labels.ROTATION_SINCE: f"{now:.3f}"}
    return _secret(cluster, authority_secret(cluster.metadata.name), "ca", content, notes)


def _secret(cluster: PDCluster, name: str, role: str, content: Files, notes: Mapping[str, str]) -> Manifest:
    annotations = {labels.MADE_FOR: cluster.metadata.uid, **notes}
    metadata = {"name": name, "labels": {labels.ROLE: role}, "annotations": annotations}
    return owned(
        cluster,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
        },
    )
