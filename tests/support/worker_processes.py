"""Workers and routers as real processes on free loopback ports, for integration tests.

    with start_worker("mixed", model, runner="Simulated") as worker:
        worker.ready            # the fields of its `ready` line
        worker.metric("pdc_blocks", holder="free")

Every wait has a deadline; a process that ends early fails the wait with the last lines it logged.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
ERNIE = ROOT / "tests/golden/ernie45-tiny"
READY_TIMEOUT = 90.0
STOP_TIMEOUT = 20.0


class ManagedProcess:
    """One `python -m pdcluster_worker ...`, its JSON lines, its end."""

    program: tuple[str, ...] = ("-m", "pdcluster_worker")

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.arguments = arguments
        self.lines: list[dict[str, Any]] = []
        self.noise: list[str] = []
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "", **(environment or {})}
        self.child = subprocess.Popen(
            [sys.executable, *self.program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=variables,
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def ready(self) -> dict[str, Any]:
        return next(line for line in self.lines if line.get("event") == "ready")

    def wait_for(self, event: str, timeout: float = READY_TIMEOUT) -> dict[str, Any]:
        """The next line with this `event`."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {event!r} line within {timeout} s: {self.tail()}") from None
            if line is None:
                raise AssertionError(f"ended with {self.child.wait()} before its {event!r} line: {self.tail()}")
            if line.get("event") == event:
                return line

    def wait_ended(self, timeout: float = STOP_TIMEOUT) -> int:
        """The exit status."""
        status = self.child.wait(timeout)
        self._reader.join(timeout)
        return status

    def tail(self) -> str:
        return "\n".join([*(json.dumps(line) for line in self.lines[-15:]), *self.noise[-15:]])

    def terminate(self) -> int:
        """SIGTERM; the exit status."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.wait_ended()

    def __enter__(self) -> "ManagedProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Whatever its state: ended, with nothing left."""
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()
        if self.child.stderr is not None:
            self.child.stderr.close()

    def _read(self) -> None:
        assert self.child.stderr is not None
        for text in self.child.stderr:
            try:
                line = json.loads(text)
            except ValueError:
                self.noise.append(text.rstrip())
                continue
            if isinstance(line, dict):
                self.lines.append(line)
                self._events.put(line)
        self._events.put(None)


class WorkerProcess(ManagedProcess):
    """A worker that is or will be ready."""

    def __init__(self, role: str, name: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.role = role
        self.name = name
        super().__init__("worker", "--role", role, "--name", name, *arguments, environment=environment)

    @property
    def address(self) -> str:
        return str(self.ready["address"])

    @property
    def instance_id(self) -> str:
        return str(self.ready["instance_id"])

    @property
    def static(self) -> str:
        """As the router's --worker takes it."""
        return f"{self.role}={self.address}"

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """By sample name and sorted labels."""
        return scrape(self.ready["metrics"])

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name whose labels include `labels`."""
        return sum_of(self.metrics(), name, **labels)

    def wait_metric(self, name: str, wanted: Callable[[float], bool], timeout: float = 10.0, **labels: str) -> float:
        """Scrapes until the value is `wanted`."""
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while not wanted(value := self.metric(name, **labels)):
            assert time.monotonic() < deadline, f"{self.name}: {name}{labels} is {value} after {timeout} s"
            pause.wait(0.05)
        return value

    def check_nothing_held(self, timeout: float = 15.0) -> None:
        """All blocks free or prefix cache, no lease, no request: waits for it at most `timeout` seconds."""
        for holder in ("running", "leased", "quarantined"):
            self.wait_metric("pdc_blocks", lambda value: value == 0, timeout, holder=holder)
        self.wait_metric("pdc_requests_waiting", lambda value: value == 0, timeout)
        self.wait_metric("pdc_requests_running", lambda value: value == 0, timeout)

    def executor_pids(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


def worker_arguments(model: Path, options: dict[str, object]) -> list[str]:
    """Keyword options as flags: runner="Simulated" gives --runner Simulated; True and False give --x and --no-x."""
    arguments = ["--model-path", str(model), "--model-name", str(options.pop("model_name", "test"))]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(flag if value else "--no-" + flag[2:])
        else:
            arguments.extend((flag, str(value)))
    return arguments


def start_worker(
    role: str,
    model: Path = ERNIE,
    *,
    name: str = "",
    wait: bool = True,
    environment: dict[str, str] | None = None,
    **options: object,
) -> WorkerProcess:
    """Starts one worker, ready when `wait`. The caller closes it (it is a context manager)."""
    worker = WorkerProcess(role, name or role, *worker_arguments(model, options), environment=environment)
    if wait:
        try:
            worker.wait_for("ready")
        except AssertionError:
            worker.close()
            raise
    return worker


@contextmanager
def running_workers(*roles: str, model: Path = ERNIE, **options: object) -> Iterator[list[WorkerProcess]]:
    """Several workers, started together: running_workers("prefill", "decode", runner="Simulated")."""
    with ExitStack() as stack:
        workers = [
            stack.enter_context(start_worker(role, model, name=f"{role}-{number}", wait=False, **options))
            for number, role in enumerate(roles)
        ]
        for worker in workers:
            worker.wait_for("ready")
        yield workers


def start_router(
    workers: Sequence[WorkerProcess], model: Path = ERNIE, *, wait: bool = True, **options: object
) -> ManagedProcess:
    """A router on a free port in front of `workers`; `ready["address"]` is its host:port."""
    arguments = worker_arguments(model, {"port": 0, **options})
    for worker in workers:
        arguments.extend(("--worker", worker.static))
    router = ManagedProcess("router", *arguments)
    if wait:
        try:
            router.wait_for("ready")
        except AssertionError:
            router.close()
            raise
    return router


def scrape(url: str, timeout: float = 5.0) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(url, timeout=timeout) as reply:
        text = reply.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sum_of(samples: dict[tuple[str, tuple[tuple[str, str], ...]], float], name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (sample, having), value in samples.items() if sample == name and wanted <= set(having))
