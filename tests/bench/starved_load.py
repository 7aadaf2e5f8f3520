"""Loads for `make bench-starved`: steady, hogging, and what can be read from their books afterwards."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from bench_cluster import TINY_KV
from load_client import LoadClient, LoadRequest, LoadWorker
from load_ledger import Ledger

SLOTS = 16
HOLD_SECONDS = 0.05
PROMPT = 256
BLOCK = 64
HOG_REQUESTS = 100
HOG_TOKENS = 4000
IN_FLIGHT = 512
WINDOW_SECONDS = 0.25
RECOVERED_SHARE = 0.9
DECODE_PROFILE = TINY_KV | {"decode": {"base": HOLD_SECONDS}}
DECODE_OPTIONS = {
    "max_running_requests": SLOTS,
    "prefix_caching": False,
    "kv_blocks": 4 * SLOTS * (PROMPT // BLOCK + 1),
}
PREFILL_OPTIONS = {
    "max_running_requests": 256,
    "prefix_caching": False,
    "kv_blocks": 256 * (PROMPT // BLOCK + 1),
    "max_batch_tokens": 1 << 15,
}


class Prompts(Sequence[LoadRequest]):
    """As many requests as anyone asks for, made when they are sent; all different from their first token on."""

    def __init__(self, number: int, prompt: int, max_tokens: int) -> None:
        self._number = number
        self._max_tokens = max_tokens
        self._body = (5).to_bytes(4, "little") * (prompt - 1)

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> LoadRequest:  # type: ignore[override]
        if index >= self._number:
            raise IndexError(index)
        first = (index % 90_000 + 3).to_bytes(4, "little")
        return LoadRequest(first + self._body, self._max_tokens)


@dataclass(frozen=True, slots=True)
class Interval:
    """Of monotonic seconds."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


class SteadyLoad:
    """Keeps IN_FLIGHT requests going until it is told to stop."""

    def __init__(self, workers: Sequence[LoadWorker], most: int = 60_000) -> None:
        self.client = LoadClient(workers, Prompts(most, PROMPT, max_tokens=2), IN_FLIGHT, keep_tokens=True)
        self._run: asyncio.Task[Ledger] | None = None

    async def start(self, kv_peers: int | None = None) -> None:
        await self.client.connect(kv_peers=kv_peers)
        self._run = asyncio.ensure_future(self.client.run())

    async def for_seconds(self, seconds: float) -> Interval:
        start = time.monotonic()
        await asyncio.sleep(seconds)
        return Interval(start, time.monotonic())

    async def finish(self) -> "Record":
        assert self._run is not None
        self.client.stop_submitting()
        ledger = await self._run
        await self.client.close()
        return Record(ledger)


class Hog:
    """Fills one decode worker through a prefill worker of its own, with requests that do not end."""

    def __init__(self, prefill: LoadWorker, decode: LoadWorker) -> None:
        requests = Prompts(HOG_REQUESTS, PROMPT, HOG_TOKENS)
        self._client = LoadClient([prefill, decode], requests, HOG_REQUESTS)
        self._run: asyncio.Task[Ledger] | None = None

    async def fill(self) -> None:
        """Returns when every slot of the decode worker has a request."""
        await self._client.connect()
        self._run = asyncio.ensure_future(self._client.run())
        async with asyncio.timeout(20):
            while int((self._client.ledger.received > 1).sum()) < SLOTS:
                await asyncio.sleep(HOLD_SECONDS)

    async def leave(self) -> float:
        """Aborts everything; returns when that was, in monotonic seconds."""
        assert self._run is not None
        self._client.abort_all()
        await self._run
        left = time.monotonic()
        await asyncio.sleep(HOLD_SECONDS)
        await self._client.close()
        return left


class Record:
    """A load that has ended."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.completed = ledger.completed
        self.failed = len(ledger.failures)
        self.failures = ledger.failures
        self.resubmissions = ledger.resubmissions

    def rate(self, interval: Interval, worker: int | None = None) -> float:
        """Requests finished per second, by all or by one decode worker (its index among the load's workers)."""
        finished = self._finished(worker)
        return float(np.count_nonzero((finished >= interval.start) & (finished < interval.end)) / interval.seconds)

    def recovery_seconds(self, since: float, until: float, worker: int, full_rate: float) -> float | None:
        """From `since` to the first window in which the worker finishes at nearly its full rate."""
        finished = np.sort(self._finished(worker))
        wanted = RECOVERED_SHARE * full_rate * WINDOW_SECONDS
        for start in np.arange(since, until - WINDOW_SECONDS, 0.01):
            begin, end = np.searchsorted(finished, [start, start + WINDOW_SECONDS])
            if end - begin >= wanted:
                return float(start - since)
        return None

    def waits(self, rows: slice | None = None) -> np.ndarray:
        """Seconds from submission to the lease at a decode worker."""
        waits: np.ndarray = (self._ledger.reserved - self._ledger.submitted)[rows or slice(None)]
        return waits[~np.isnan(waits)]

    def _finished(self, worker: int | None) -> np.ndarray:
        done = ~np.isnan(self._ledger.finished)
        if worker is not None:
            done &= self._ledger.decoded_by == worker
        finished: np.ndarray = self._ledger.finished[done]
        return finished
