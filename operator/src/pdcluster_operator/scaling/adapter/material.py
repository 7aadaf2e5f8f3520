"""The adapter's certificate: what the Secret holds, and when what of it is made anew. Pure, but for new keys.

An authority signs the leaf that all replicas serve. A new authority is first put into the bundle that the API server
trusts, beside the old one; the leaf follows once the API server has that bundle, so that there is no moment in which it
trusts something else than what is served.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509

from pdcluster_operator.certificates import Authority, Pair
from pdcluster_operator.errors import OperatorError

AUTHORITY_LIFETIME, AUTHORITY_MARGIN = timedelta(days=3650), timedelta(days=365)
LEAF_LIFETIME, LEAF_MARGIN = timedelta(days=90), timedelta(days=30)
"""The margin before its end is when a certificate is replaced."""
KEYS = ("tls.crt", "tls.key", "ca.crt", "ca.key", "bundle.crt")


class MaterialError(OperatorError):
    """The Secret holds something else."""


@dataclass(frozen=True, slots=True)
class Material:
    """`bundle`: every authority to trust, PEM, the current one first."""

    authority: Pair
    bundle: bytes
    leaf: Pair


def restored(data: Mapping[str, str]) -> Material | None:
    """From a Secret's data; None when it is still empty. Raises MaterialError when it is anything else."""
    if not data:
        return None
    try:
        content = {key: base64.b64decode(data[key], validate=True) for key in KEYS}
        x509.load_pem_x509_certificates(content["bundle.crt"])
        x509.load_pem_x509_certificate(content["tls.crt"])
        Authority.restored(Pair(content["ca.crt"], content["ca.key"]))
    except (KeyError, ValueError) as error:
        raise MaterialError(f"the Secret holds no certificate of the adapter: {error}") from error
    return Material(
        authority=Pair(content["ca.crt"], content["ca.key"]),
        bundle=content["bundle.crt"],
        leaf=Pair(content["tls.crt"], content["tls.key"]),
    )


def stored(material: Material) -> dict[str, str]:
    """As a Secret's data."""
    values = (material.leaf.certificate, material.leaf.key, material.authority.certificate, material.authority.key)
    return {key: base64.b64encode(value).decode() for key, value in zip(KEYS, (*values, material.bundle), strict=True)}


def renewed(material: Material | None, names: Sequence[str], now: datetime, trusted: bytes) -> Material:
    """What there should be now; the same object when nothing is due. `trusted`: the API server's bundle."""
    if material is None:
        fresh = Authority("pdcluster-metrics-adapter", now, AUTHORITY_LIFETIME)
        leaf = fresh.issue(names, [], now, LEAF_LIFETIME)
        return Material(authority=fresh.pair(), bundle=fresh.certificate, leaf=leaf)
    if _ends(material.authority.certificate) - now < AUTHORITY_MARGIN:
        fresh = Authority("pdcluster-metrics-adapter", now, AUTHORITY_LIFETIME)
        kept = [entry for entry in _certificates(material.bundle) if _ends(entry) > now]
        material = replace(material, authority=fresh.pair(), bundle=b"".join([fresh.certificate, *kept]))
    if _is_leaf_due(material, names, now, trusted):
        leaf = Authority.restored(material.authority).issue(names, [], now, LEAF_LIFETIME)
        return replace(material, leaf=leaf)
    return material


def _is_leaf_due(material: Material, names: Sequence[str], now: datetime, trusted: bytes) -> bool:
    """A leaf of a new authority waits until that is trusted, unless the old leaf is worth nothing any more."""
    leaf = x509.load_pem_x509_certificate(material.leaf.certificate)
    if leaf.not_valid_after_utc <= now or _names(leaf) != set(names):
        return True
    authority = x509.load_pem_x509_certificate(material.authority.certificate)
    is_ours = _is_signed_by(leaf, authority)
    due = not is_ours or leaf.not_valid_after_utc - now < LEAF_MARGIN
    return due and (is_ours or trusted == material.bundle)


def _is_signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    """All authorities here have the same name: their keys tell them apart."""
    signer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    return signer == authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def _names(leaf: x509.Certificate) -> set[str]:
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(found.get_values_for_type(x509.DNSName))


def _certificates(bundle: bytes) -> list[bytes]:
    mark = b"-----BEGIN CERTIFICATE-----"
    return [mark + part for part in bundle.split(mark)[1:]]


def _ends(certificate: bytes) -> datetime:
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
