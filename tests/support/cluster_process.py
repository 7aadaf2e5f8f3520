"""One program of the control plane as a child process: its log, its readiness, its end.

A child dies with the test process, however that dies, because `setpriv` gives it a parent-death signal.
"""

import contextlib
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

STOP_SECONDS = 10.0
PROBE_SECONDS = 0.1


class DiedError(RuntimeError):
    """A program ended, or was not ready in time; the message has the end of its log."""


class Reservation:
    """A free loopback port that nobody else is given while the reservation is open.

    The socket is bound and does not listen, so that a server which sets SO_REUSEADDR, as every Go server does, may bind
    the same port beside it.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.port: int = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()


class Program:
    """A running program; `close` ends it and is idempotent."""

    def __init__(
        self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_ready(self, url: str, trust: ssl.SSLContext | None = None, seconds: float = 60.0) -> None:
        """Returns when a GET of `url` succeeds; raises DiedError when the program ends before, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not _answers(url, trust):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(PROBE_SECONDS)
                raise DiedError(f"{self.name} ended with {self._child.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise DiedError(f"{self.name} was not ready after {seconds} s:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the program, if it lives."""
        if self._child.poll() is None:
            self._child.send_signal(number)

    def wait(self, seconds: float) -> int:
        """The exit status; raises subprocess.TimeoutExpired when it still runs after `seconds`."""
        return self._child.wait(seconds)

    def close(self) -> None:
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(STOP_SECONDS)


def _answers(url: str, trust: ssl.SSLContext | None) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with direct.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
