"""API keys from a file, one a line, read again when the file changes. Compared in constant time."""

import hmac
from pathlib import Path

import structlog

from pdcluster_worker.errors import ConfigError
from pdcluster_worker.router.errors import APIError

_log = structlog.get_logger()


class APIKeys:
    """Without a file everybody is let in."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._keys: tuple[bytes, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        if path is not None:
            try:
                self._read(path)
            except OSError as error:
                raise ConfigError(f"--api-key-file {path}: {error}") from error
            if not self._keys:
                raise ConfigError(f"--api-key-file {path}: no key in it")

    def check(self, authorization: str) -> None:
        """APIError 401 unless the header carries one of the keys as a bearer token."""
        if self._path is None:
            return
        self._refresh(self._path)
        scheme, _, given = authorization.partition(" ")
        token = given.strip().encode() if scheme.lower() == "bearer" else b""
        matches = [hmac.compare_digest(token, key) for key in self._keys]
        if not token or not any(matches):
            message = "a valid API key is needed: Authorization: Bearer KEY"
            raise APIError(401, message, kind="authentication_error", code="invalid_api_key")

    def _refresh(self, path: Path) -> None:
        try:
            self._read(path)
        except OSError as error:  # being replaced; the keys known so far stay good
            _log.warning("API keys cannot be read again", path=str(path), reason=str(error))

    def _read(self, path: Path) -> None:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ino, status.st_size)
        if stamp != self._stamp:
            lines = path.read_text(encoding="utf-8").splitlines()
            self._keys = tuple(line.strip().encode() for line in lines if line.strip() and not line.startswith("#"))
            self._stamp = stamp
