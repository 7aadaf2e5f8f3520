"""Mutual TLS from files that may change at any time, and who may talk to whom.

Every certificate names its bearer's role in a SAN `<role>.<cluster>.<namespace>.pdcluster`. A server checks
the client's (`Authority.allows`), a client expects the server's (`target_name`).

Files are read again for every new connection; a set that does not fit together (a rotation in progress) is
passed over for the last good one.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pdcluster_worker.config import TLSFiles
from pdcluster_worker.errors import ConfigError

log = structlog.get_logger(__name__)

SAN_KEY = "x509_subject_alternative_name"
ROUTER = "router"
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class CertificateSet:
    """PEM, as gRPC takes it."""

    cert: bytes
    key: bytes
    ca: bytes


class TLSIdentity:
    """This process's certificate and whom it trusts. Any thread may use it."""

    def __init__(self, files: TLSFiles, cluster: str) -> None:
        """`cluster` is NAME.NAMESPACE. Raises ConfigError when the files cannot be used."""
        if not cluster:
            raise ConfigError("--cluster is needed with --tls-cert: peers are known by role and cluster")
        self._files = files
        self._cluster = cluster
        self._lock = threading.Lock()
        self._current = read_certificates(files)

    def current(self) -> CertificateSet:
        """The files as they are now; the last good ones while they do not fit together."""
        try:
            fresh = read_certificates(self._files)
        except ConfigError as error:
            log.warning("certificate_unusable", reason=str(error))
            return self._current
        with self._lock:
            if fresh != self._current:
                log.info("certificate_reloaded", path=str(self._files.cert))
                self._current = fresh
        return self._current

    def server_credentials(self) -> grpc.ServerCredentials:
        """Asks every client for a certificate; reads the files again for each new connection."""
        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(), self._server_configuration, require_client_authentication=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For one new channel, of the files as they are now."""
        now = self.current()
        return grpc.ssl_channel_credentials(now.ca, now.key, now.cert)

    def target_name(self, role: str) -> str:
        """The SAN that a server of `role` must show."""
        return san(role, self._cluster)

    def allows(self, auth_context: Mapping[str, Iterable[bytes]], roles: Iterable[str]) -> bool:
        """Does the peer's verified certificate name one of `roles` of this cluster?"""
        names = {name.decode(errors="replace") for name in auth_context.get(SAN_KEY, ())}
        return any(san(role, self._cluster) in names for role in roles)

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        now = self.current()
        return grpc.ssl_server_certificate_configuration([(now.key, now.cert)], root_certificates=now.ca)


def san(role: str, cluster: str) -> str:
    return f"{role}.{cluster}.pdcluster"


def read_certificates(files: TLSFiles) -> CertificateSet:
    """Raises ConfigError naming the file that is missing, is no PEM or does not fit."""
    cert, key, ca = (_read(path) for path in (files.cert, files.key, files.ca))
    try:
        public = x509.load_pem_x509_certificate(cert).public_key()
    except ValueError as error:
        raise ConfigError(f"{files.cert}: not a PEM certificate: {error}") from error
    try:
        private = load_pem_private_key(key, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{files.key}: not an unencrypted PEM key: {error}") from error
    try:
        x509.load_pem_x509_certificates(ca)
    except ValueError as error:
        raise ConfigError(f"{files.ca}: not PEM certificates: {error}") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != private.public_key().public_bytes(*form):
        raise ConfigError(f"{files.key} is not the key of {files.cert}")
    return CertificateSet(cert, key, ca)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
