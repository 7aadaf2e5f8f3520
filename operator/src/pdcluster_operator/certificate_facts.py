"""What a Secret with a certificate says about itself, as far as decisions need it: dates, names, issuer. No key stays.

Read from the certificate and not from notes about it, so that material that somebody replaced is seen for what it is.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pdcluster_operator.desired import labels

Files = Mapping[str, bytes]
NEEDED = ("tls.crt", "tls.key", "ca.crt")


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """Times are Unix seconds. With a `problem`, which is for people, nothing else counts."""

    problem: str = ""
    names: tuple[str, ...] = ()
    not_before: float = 0.0
    not_after: float = 0.0
    key: str = ""
    """Which key the certificate is for."""
    issuer: str = ""
    """Which key signed it; empty when none of the authorities in the Secret did."""
    trust: str = ""
    """Which authorities are trusted beside it."""
    phase: str = ""
    since: float = 0.0
    """Of an authority's Secret: how far its rotation is, and since when."""
    made_for: str = ""
    """The uid of the PDCluster that the operator made it for."""
    handed_to: str = ""
    """The name of the PDCluster that a person hands it to."""


def facts_of(secret: Mapping[str, Any]) -> CertificateFacts:
    """The facts of a Secret as the API server has it; whatever it holds, this answers."""
    try:
        files = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        found = read(files)
        notes = secret["metadata"].get("annotations") or {}
        return CertificateFacts(
            names=_names(found.leaf),
            not_before=found.leaf.not_valid_before_utc.timestamp(),
            not_after=found.leaf.not_valid_after_utc.timestamp(),
            key=key_of(found.leaf),
            issuer=found.issuer,
            trust=trust_of(files["ca.crt"]),
            phase=notes.get(labels.ROTATION, ""),
            since=float(notes.get(labels.ROTATION_SINCE) or 0),
            made_for=notes.get(labels.MADE_FOR, ""),
            handed_to=notes.get(labels.ADOPT, ""),
        )
    except ValueError as error:
        return CertificateFacts(problem=str(error))


@dataclass(frozen=True, slots=True)
class Material:
    """A readable pair; `issuer` as in CertificateFacts."""

    leaf: x509.Certificate
    issuer: str


def read(files: Files) -> Material:
    """Raises ValueError saying what is missing, unreadable, or does not fit together."""
    missing = [name for name in NEEDED if not files.get(name)]
    if missing:
        raise ValueError(f"{', '.join(missing)} is missing")
    leaf, *chain = _certificates(files, "tls.crt")
    authorities = _certificates(files, "ca.crt")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        own = load_pem_private_key(files["tls.key"], None).public_key().public_bytes(*form)
    except (ValueError, TypeError) as error:
        raise ValueError("tls.key is not an unencrypted private key in PEM") from error
    if own != leaf.public_key().public_bytes(*form):
        raise ValueError("tls.key is not the key of tls.crt")
    signers = [key_of(authority) for authority in (*chain, *authorities) if _signed(authority, leaf)]
    return Material(leaf, signers[0] if signers else "")


def key_of(certificate: x509.Certificate) -> str:
    """Which key a certificate is for."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()[:16]


def trust_of(bundle: bytes) -> str:
    """A mark of a set of trusted authorities."""
    return hashlib.sha256(bundle).hexdigest()[:16]


def _certificates(files: Files, name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(files[name])
    except ValueError as error:
        raise ValueError(f"{name} holds no certificate in PEM") from error


def _signed(authority: x509.Certificate, leaf: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.value.get_values_for_type(x509.DNSName))
