"""A prefill worker that prepares requests as the seed did: a program for `make bench-seed`, and nothing of the product.

    python tests/bench/blocking.py worker ...       with PDC_BENCH_STRATEGY=ack | pause

It is the product's worker with another prepare pool. A thread takes up to three requests and handles one after the
other: it prepares the request, then looks every millisecond whether the decode worker has answered; with `ack` (before
the seed) it then looks until the transfer has been registered; with `pause` (the seed) it sleeps 20 ms after each
batch. A thread gives up on an answer after 30 s and takes the next request, as the original does.
"""

import os
import queue
import sys
import threading
import time
from collections.abc import Callable

from pdcluster_worker.cli import main as worker_main
from pdcluster_worker.core.effects import Outbox
from pdcluster_worker.core.events import Granted, Prepared, PrepareFailed
from pdcluster_worker.core.ids import RequestId, RequestKey
from pdcluster_worker.core.request import Request
from pdcluster_worker.engine import process
from pdcluster_worker.engine.items import Item
from pdcluster_worker.engine.loop import EngineLoop

FETCHED_AT_ONCE = 3
POLL_SECONDS = 0.001
PAUSE_SECONDS = 0.02
ANSWER_SECONDS = 30.0
STRATEGY = os.environ.get("PDC_BENCH_STRATEGY", "pause")


class Answers:
    """What the engine loop has seen; the waiting threads look at it. Sets are written by the engine thread alone."""

    def __init__(self) -> None:
        self.granted: set[RequestId] = set()
        self.registered: set[RequestId] = set()


ANSWERS = Answers()


class BlockingPool:
    """Stands in for PreparePool."""

    def __init__(
        self, threads: int, prepare: Callable[[Request], bytes], deliver: Callable[[Prepared | PrepareFailed], None]
    ) -> None:
        self._prepare = prepare
        self._deliver = deliver
        self._jobs: queue.SimpleQueue[Request] = queue.SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._run, name=f"blocking-{number}", daemon=True).start()

    def submit(self, request: Request) -> None:
        self._jobs.put(request)

    def skip(self, key: RequestKey) -> None:
        """The original goes on waiting for a request that has been aborted."""

    def close(self) -> None:
        """The threads end with the process."""

    def _run(self) -> None:
        while True:
            batch = [self._jobs.get()]
            while len(batch) < FETCHED_AT_ONCE and not self._jobs.empty():
                batch.append(self._jobs.get())
            for request in batch:
                self._handle(request)
            if STRATEGY == "pause":
                time.sleep(PAUSE_SECONDS)

    def _handle(self, request: Request) -> None:
        start = time.perf_counter()
        hashes = self._prepare(request)
        self._deliver(Prepared(request=request, block_hashes=hashes, seconds=time.perf_counter() - start))
        self._wait(ANSWERS.granted, request.request_id)
        if STRATEGY == "ack":
            self._wait(ANSWERS.registered, request.request_id)

    def _wait(self, seen: set[RequestId], request_id: RequestId) -> None:
        deadline = time.monotonic() + ANSWER_SECONDS
        while request_id not in seen and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


class WatchedLoop(EngineLoop):
    """The product's loop, which also notes what blocking threads wait for."""

    def _accept(self, item: Item, now: float) -> None:
        if isinstance(item, Granted):
            ANSWERS.granted.add(item.key.request_id)
        super()._accept(item, now)

    def _tell_executor(self, outbox: Outbox, now: float) -> None:
        super()._tell_executor(outbox, now)
        for plan in outbox.plans:
            ANSWERS.registered.update(RequestId(admission.request_id) for admission in plan.admissions)


if __name__ == "__main__":
    process.PreparePool = BlockingPool  # type: ignore[assignment,misc]
    process.EngineLoop = WatchedLoop  # type: ignore[misc]
    sys.exit(worker_main())
