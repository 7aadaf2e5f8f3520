"""The real operator as a process of the test, on the cluster under test."""

import asyncio
import contextlib
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from cluster_process import Program, Reservation

IMAGE = "example.invalid/worker:test"


class OperatorProcess:
    """One operator that acts on one namespace; `restart` starts another in its place."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._reservation = Reservation()
        self._environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig),
            "POD_NAMESPACE": namespace,
            "PDC_NAMESPACES": namespace,
            "PDC_WORKER_IMAGE": IMAGE,
            "PDC_HOST": "127.0.0.1",
            "PDC_METRICS_PORT": str(self._reservation.port),
            "PDC_LEASE_SECONDS": "8",
            **environment,
        }
        self._started = 0
        self.program = self._start()
        self._wait_ready()

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self._reservation.port}/metrics"

    def restart(self, **environment: str) -> None:
        """Ends the one that runs, whatever it does, and starts a new one, with other settings if there are any."""
        self.program.close()
        self.start_another(**environment)
        self._wait_ready()

    def start_another(self, **environment: str) -> None:
        """In place of one that has ended; returns at once, while it starts."""
        self._environment |= environment
        self.program = self._start()

    def close(self) -> None:
        self.program.close()
        self._reservation.close()

    def _start(self) -> Program:
        self._started += 1
        command = [sys.executable, "-m", "pdcluster_operator"]
        identity = self._environment.get("PDC_IDENTITY", f"operator-{self._started}")
        environment = {**self._environment, "POD_NAME": identity}
        return Program(f"operator-{self._started}", command, self._folder, environment)

    def _wait_ready(self) -> None:
        self.program.wait_ready(f"http://127.0.0.1:{self._reservation.port}/health")


@contextlib.contextmanager
def operator_process(folder: Path, kubeconfig: Path, namespace: str, **environment: str) -> Iterator[OperatorProcess]:
    """An operator that runs while the context lasts; pytest shows the end of its log when the test fails."""
    process = OperatorProcess(folder, kubeconfig, namespace, environment)
    try:
        yield process
    finally:
        process.close()
        print(process.program.tail(60))


async def turns(operator: OperatorProcess, number: int, since: float | None = None, seconds: float = 30.0) -> None:
    """Returns when the operator has taken so many turns more than it had; raises TimeoutError after `seconds`."""
    wanted = (await turns_taken(operator) if since is None else since) + number
    async with asyncio.timeout(seconds):
        while await turns_taken(operator) < wanted:
            await asyncio.sleep(0.1)


async def turns_taken(operator: OperatorProcess) -> float:
    """How many turns this process has taken so far."""
    return await asyncio.to_thread(_turns_of, operator.metrics_url)


def _turns_of(url: str) -> float:
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("pdc_operator_turn_seconds_count"))
