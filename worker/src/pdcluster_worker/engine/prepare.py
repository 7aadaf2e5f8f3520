"""The prepare pool: threads that check and hash requests, so that the engine loop does not.

A request belongs to the thread that prepares it until its one result is in the inbox. Nothing here waits for a peer.
"""

import queue
import threading
import time
from collections.abc import Callable

import structlog

from pdcluster_worker.core.events import Prepared, PrepareFailed
from pdcluster_worker.core.ids import RequestKey
from pdcluster_worker.core.request import Request
from pdcluster_worker.errors import ValidationError

log = structlog.get_logger(__name__)

JOIN_TIMEOUT = 5.0

Deliver = Callable[[Prepared | PrepareFailed], None]


class PreparePool:
    """`submit` and `skip` are for the engine thread; `deliver` is called on the pool's threads."""

    def __init__(self, threads: int, prepare: Callable[[Request], bytes], deliver: Deliver) -> None:
        """`prepare` returns block hashes or raises ValidationError; it runs on several threads at once."""
        self._prepare = prepare
        self._deliver = deliver
        self._jobs: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._pending: set[RequestKey] = set()
        self._threads = [threading.Thread(target=self._run, name=f"prepare-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, request: Request) -> None:
        with self._lock:
            self._pending.add(request.key)
        self._jobs.put(request)

    def skip(self, key: RequestKey) -> None:
        """The request has ended: unless its job runs already it is passed over, without a result."""
        with self._lock:
            self._pending.discard(key)

    def close(self) -> None:
        """Jobs not begun are dropped; running ones end first."""
        with self._lock:
            self._pending.clear()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT)

    def _run(self) -> None:
        while (request := self._jobs.get()) is not None:
            if self._claim(request.key) and request.deadline > time.monotonic():
                self._deliver(self._result(request))

    def _claim(self, key: RequestKey) -> bool:
        with self._lock:
            wanted = key in self._pending
            self._pending.discard(key)
        return wanted

    def _result(self, request: Request) -> Prepared | PrepareFailed:
        started = time.perf_counter()
        try:
            hashes = self._prepare(request)
        except ValidationError as error:
            return PrepareFailed(key=request.key, reason=str(error))
        except Exception as error:  # the thread's top: the request that it held fails, no other
            log.exception("prepare_failed", request=request.request_id.hex())
            return PrepareFailed(key=request.key, reason=f"the request cannot be prepared: {error}")
        return Prepared(request=request, block_hashes=hashes, seconds=time.perf_counter() - started)
