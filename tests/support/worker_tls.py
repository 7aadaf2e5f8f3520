"""A certificate authority for tests, and leaves that name a role of a cluster as pdcluster's certificates do."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pdcluster_worker.config import TLSFiles
from pdcluster_worker.splitwise.tls import san

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Leaf:
    """PEM."""

    cert: bytes
    key: bytes


class CertificateAuthority:
    def __init__(self, name: str = "test ca") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def leaf(self, *names: str, expired: bool = False) -> Leaf:
        """A certificate with these DNS names, for 127.0.0.1 as well."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64] if names else "leaf")])
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        certificate = (
            _builder(subject, self._name, key.public_key(), expired=expired)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Leaf(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, expired: bool = False
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    end = now - DAY if expired else now + 30 * DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * DAY)
        .not_valid_after(end)
    )


def write_tls(folder: Path, ca: bytes, leaf: Leaf) -> TLSFiles:
    """Files as a pod has them; writing again is a rotation."""
    folder.mkdir(parents=True, exist_ok=True)
    files = TLSFiles(cert=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")
    for path, content in ((files.cert, leaf.cert), (files.key, leaf.key), (files.ca, ca)):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.rename(path)
    return files


def role_files(folder: Path, authority: CertificateAuthority, role: str, cluster: str) -> TLSFiles:
    """A fresh leaf of `role`, and the authority as the only one trusted."""
    return write_tls(folder, authority.pem, authority.leaf(san(role, cluster)))


def tls_flags(files: TLSFiles) -> dict[str, object]:
    """For `start_worker(**...)`."""
    return {"tls_cert": files.cert, "tls_key": files.key, "tls_ca": files.ca}
