"""The TLS side of the adapter: which certificate it shows, and whose it accepts; both change while it serves.

Every handshake is finished under the current context. A connection that was let in under an older trust is dropped at
its next request: its caller, which has nothing to lose by it, connects and is checked again.
"""

import ssl
import tempfile
from pathlib import Path
from typing import Any

from pdcluster_operator.certificates import Pair
from pdcluster_operator.scaling.adapter.callers import Callers


class Door:
    """Written by the watches of the Secret and of the ConfigMap, on the event loop."""

    def __init__(self) -> None:
        self._leaf: Pair | None = None
        self._callers: Callers | None = None
        self._current: ssl.SSLContext | None = None
        self._trusted: dict[ssl.SSLContext, Callers] = {}
        self.front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        """What to listen with; it hands every handshake over to the current context."""
        self.front.verify_mode = ssl.CERT_REQUIRED
        _without_resumption(self.front)
        self.front.sni_callback = self._hand_over

    @property
    def is_open(self) -> bool:
        """Whether anybody can be let in: there are a certificate and somebody to expect."""
        return self._current is not None

    def show(self, leaf: Pair) -> None:
        if leaf != self._leaf:
            self._leaf = leaf
            self._renew()

    def expect(self, callers: Callers | None) -> None:
        """None: nobody, until it is known again who calls."""
        if callers != self._callers:
            self._callers = callers
            self._renew()

    def admits(self, connection: ssl.SSLObject | None) -> bool | None:
        """Whether this connection's caller may ask; None: it was let in under an older trust, and must come again."""
        if connection is None or self._callers is None:
            return False
        if self._trusted.get(connection.context) != self._callers:
            return None
        return self._callers.allow(connection.getpeercert())

    def _renew(self) -> None:
        if self._leaf is None or self._callers is None:
            self._current = None
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._callers.authority)
        _without_resumption(context)
        _load(context, self._leaf)
        self._current = context
        # A leaf that was replaced does not end the connections made under it.
        self._trusted = {key: value for key, value in self._trusted.items() if value == self._callers}
        self._trusted[context] = self._callers

    def _hand_over(self, connection: Any, name: str | None, front: ssl.SSLContext) -> int | None:
        if self._current is None:
            return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        connection.context = self._current
        return None


def _without_resumption(context: ssl.SSLContext) -> None:
    """A resumed session would not be checked again."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """Python's TLS takes a key only from a file: one that nobody else can read, for this moment."""
    with tempfile.TemporaryDirectory(prefix="pdc-adapter-") as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_bytes(pair.certificate)
        key.touch(mode=0o600)
        key.write_bytes(pair.key)
        context.load_cert_chain(certificate, key)
