"""A whole PDCluster of real processes for one test module: workers, a router, clients; and proof that nothing leaked.

    with Deployment([WorkerSpec("prefill"), WorkerSpec("decode")]) as cluster:
        answers = cluster.complete([{"prompt": [1, 2, 3], "max_tokens": 8}])
        cluster.check_nothing_held()

Workers keep their ports over a restart, as `pdc run` has it.
"""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from worker_processes import ERNIE, WorkerProcess, scrape, start_router, start_worker, sum_of

MODEL = "test"
SERVING_TIMEOUT = 60.0
LEAK_TIMEOUT = 30.0
ANSWER_TIMEOUT = 120.0
POLL_SECONDS = 0.1
HELD_BLOCKS = ("running", "leased", "quarantined")


@dataclass(frozen=True)
class WorkerSpec:
    """`options` as `start_worker` takes them; a `grpc_port` among them stays the worker's over restarts."""

    role: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What a client got, streamed or not. `error` is empty on success."""

    status: int
    tokens: list[int]
    text: str
    finish_reason: str
    usage: dict[str, Any]
    error: str = ""

    @property
    def cached_tokens(self) -> int:
        return int(self.usage["prompt_tokens_details"]["cached_tokens"])


class Deployment:
    """The context manager starts all and stops all. One test at a time uses it."""

    def __init__(self, specs: Sequence[WorkerSpec], model: Path = ERNIE, **router_options: object) -> None:
        self._specs = list(specs)
        self._model = model
        self._router_options = router_options
        self._stack = ExitStack()
        self._ports: list[str] = []
        self.workers: list[WorkerProcess] = []
        self.ended: list[WorkerProcess] = []
        """Those that were replaced; their log lines can be read."""
        self.base = ""

    def __enter__(self) -> "Deployment":
        try:
            self.workers = [self._start(number, {}) for number in range(len(self._specs))]
            for worker in self.workers:
                worker.wait_for("ready")
                self._ports.append(worker.address.rsplit(":", 1)[1])
            router = start_router(self.workers, self._model, **self._router_options)
            self._stack.enter_context(router)
            self.base = f"http://{router.ready['address']}"
            self.wait_serving()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()
        self._stack.close()

    # --- clients ------------------------------------------------------------------------------------

    def complete(
        self, bodies: Sequence[Mapping[str, object]], path: str = "/v1/completions", timeout: float = ANSWER_TIMEOUT
    ) -> list[Answer]:
        """All at once, each in one JSON answer, greedy unless the body says otherwise."""
        return asyncio.run(self.complete_async(bodies, path, timeout))

    async def complete_async(
        self, bodies: Sequence[Mapping[str, object]], path: str = "/v1/completions", timeout: float = ANSWER_TIMEOUT
    ) -> list[Answer]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.base, timeout=timeout, limits=limits) as client:
            posts = (client.post(path, json=request_body(body)) for body in bodies)
            return [read_answer(reply) for reply in await asyncio.gather(*posts)]

    def wait_serving(self) -> None:
        """Until the router says that it can serve."""
        wait_until(self._is_ready, SERVING_TIMEOUT, f"{self.base}/ready")

    def _is_ready(self) -> bool:
        return httpx.get(f"{self.base}/ready", timeout=5.0).status_code == 200

    # --- workers ------------------------------------------------------------------------------------

    def of_role(self, role: str) -> list[int]:
        return [number for number, spec in enumerate(self._specs) if spec.role == role]

    def kill(self, number: int) -> None:
        """SIGKILL of the engine; its executor goes with it."""
        self.workers[number].kill()

    def restart(self, number: int) -> None:
        """A new process at the port of the one that was killed; returns before it is ready."""
        self.workers[number].close()
        self.ended.append(self.workers[number])
        self.workers[number] = self._start(number, {"grpc_port": self._ports[number]})

    def wait_workers(self) -> None:
        """Until every worker that was restarted is ready."""
        for worker in self.workers:
            if not any(line.get("event") == "ready" for line in list(worker.lines)):
                worker.wait_for("ready")

    def _start(self, number: int, more: Mapping[str, object]) -> WorkerProcess:
        spec = self._specs[number]
        options = {**more, **spec.options}
        return start_worker(spec.role, self._model, name=f"{spec.role}-{number}", wait=False, **options)

    # --- leaks --------------------------------------------------------------------------------------

    def check_nothing_held(self) -> None:
        """Zero leases, zero requests, every block free or prefix cache, on every worker; waits for it at most 30 s."""
        deadline = time.monotonic() + LEAK_TIMEOUT
        for worker in self.workers:
            url = worker.ready["metrics"]
            wait_until(lambda url=url: not held(url), deadline - time.monotonic(), lambda url=url: str(held(url)))


def router_metric(cluster: Deployment, name: str, **labels: str) -> float:
    """Sum of the router's samples of this name."""
    return sum_of(scrape(f"{cluster.base}/metrics"), name, **labels)


def held(metrics_url: str) -> dict[str, float]:
    """What a worker holds that an idle one does not."""
    samples = scrape(metrics_url)
    found = {f"blocks {holder}": sum_of(samples, "pdc_blocks", holder=holder) for holder in HELD_BLOCKS}
    found["leases"] = sum_of(samples, "pdc_leases")
    found["waiting"] = sum_of(samples, "pdc_requests_waiting")
    found["running"] = sum_of(samples, "pdc_requests_running")
    return {name: value for name, value in found.items() if value}


def request_body(body: Mapping[str, object]) -> dict[str, object]:
    return {"model": MODEL, "temperature": 0, "return_token_ids": True} | dict(body)


def read_answer(reply: httpx.Response) -> Answer:
    if reply.status_code != 200:
        return Answer(reply.status_code, [], "", "", {}, reply.text)
    body = reply.json()
    choice = body["choices"][0]
    text = choice["message"]["content"] if "message" in choice else choice["text"]
    return Answer(200, choice["token_ids"], text, choice["finish_reason"], body["usage"])


def wait_until(condition: Any, timeout: float, what: Any) -> None:
    """Asks again every 0.1 s. `what` says what is waited for, or is a function that does."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, what() if callable(what) else what
        pause.wait(POLL_SECONDS)
