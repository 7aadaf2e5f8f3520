"""Loopback ports that stay a pod's own while it is down.

A kept port is bound by us but never listened on. On Linux another socket may listen on it when both allow reuse of the
address, as servers do; nobody gets it by asking for a free one, nor as the source of an outgoing connection.
"""

import errno
import socket
from collections.abc import Sequence
from types import TracebackType

from pdcluster_operator.desired.pod import Ports
from pdcluster_operator.errors import LocalError

LOOPBACK = "127.0.0.1"


class PortKeeper:
    """Keeps ports until it is closed."""

    def __init__(self) -> None:
        self._kept: list[socket.socket] = []

    def free(self) -> int:
        """A port that nobody uses."""
        keeper = socket.socket()
        self._kept.append(keeper)
        keeper.bind((LOOPBACK, 0))
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return int(keeper.getsockname()[1])

    def chosen(self, port: int) -> int:
        """The port that the user asked for. Raises LocalError when it is in use.

        Connections that linger after their server has ended do not count as use.
        """
        keeper = socket.socket()
        self._kept.append(keeper)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            keeper.bind((LOOPBACK, port))
        except OSError as error:
            what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise LocalError(f"port {port} of {LOOPBACK} {what}; choose another with --port") from error
        return port

    def for_worker(self) -> Ports:
        return Ports(grpc=self.free(), metrics=self.free())

    def for_router(self, port: int) -> Ports:
        """`port` 0: any."""
        return Ports(http=self.chosen(port) if port else self.free())

    def close(self) -> None:
        for keeper in self._kept:
            keeper.close()
        self._kept.clear()

    def __enter__(self) -> "PortKeeper":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def assign(keeper: PortKeeper, workers: Sequence[str], router: str, port: int) -> dict[str, Ports]:
    """Ports by pod name."""
    return {router: keeper.for_router(port)} | {name: keeper.for_worker() for name in workers}
