"""Reads workers when somebody asks, and only then: at rest there is no traffic, however many workers there are.

A reading serves every question of the next seconds, and of two that ask at once, one reads. An autoscaler asks every
15 s, for one role at a time; a fixed interval would read everything all the time, also what nobody scales by.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus

import aiohttp
import structlog

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.scaling.adapter.answers import Reading
from pdcluster_operator.scaling.adapter.exposition import gauges
from pdcluster_operator.scaling.adapter.metrics import AdapterMetrics
from pdcluster_operator.scaling.adapter.workers import Worker

log = structlog.get_logger(__name__)

REUSE_SECONDS = 4.0
"""A reading that is younger is not repeated."""
ATTEMPTS, ATTEMPT_SECONDS = 2, 2.0
QUESTION_SECONDS = 5.0
"""A question waits no longer for its readings; an autoscaler that waits holds up others."""
AT_ONCE = 64
LONGEST_BODY = 1 << 20


Fetch = Callable[[str], Awaitable[Mapping[str, float]]]
"""From a worker's URL to its gauges; raises OperatorError, aiohttp.ClientError or OSError."""


class ScrapeError(OperatorError):
    """A worker did not tell its metrics."""


class Scraper:
    """The only writer of the readings. One task per worker that is being read."""

    def __init__(self, fetch: Fetch, metrics: AdapterMetrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._metrics = metrics
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running: dict[str, asyncio.Task[None]] = {}
        self.readings: dict[str, Reading] = {}

    async def refresh(self, workers: Iterable[Worker]) -> Mapping[str, Reading]:
        """Reads what is not fresh; returns within QUESTION_SECONDS, with whatever there is then."""
        tasks = [self._task(worker) for worker in workers if not self._is_fresh(worker)]
        if tasks:
            await asyncio.wait(tasks, timeout=QUESTION_SECONDS)
        return self.readings

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self.readings.pop(uid, None)
        if task := self._running.pop(uid, None):
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_fresh(self, worker: Worker) -> bool:
        reading = self.readings.get(worker.uid)
        return reading is not None and self._clock() - reading.at < REUSE_SECONDS

    def _task(self, worker: Worker) -> asyncio.Task[None]:
        task = self._running.get(worker.uid)
        if task is None:
            task = asyncio.create_task(self._read(worker))
            self._running[worker.uid] = task
            task.add_done_callback(lambda done: self._ended(worker.uid, done))
        return task

    def _ended(self, uid: str, task: asyncio.Task[None]) -> None:
        if self._running.get(uid) is task:
            del self._running[uid]

    async def _read(self, worker: Worker) -> None:
        """One reading; a failed one leaves the last as it is."""
        for attempt in range(ATTEMPTS):
            async with self._slots:
                began = self._clock()
                try:
                    async with asyncio.timeout(ATTEMPT_SECONDS):
                        values = await self._fetch(worker.url)
                except (OperatorError, aiohttp.ClientError, OSError) as error:
                    self._metrics.scraped(type(error).__name__, self._clock() - began)
                    reason = str(error) or type(error).__name__
                    log.warning("worker_unread", worker=worker.name, attempt=attempt + 1, reason=reason)
                    continue
            self._metrics.scraped("read", self._clock() - began)
            self.readings[worker.uid] = Reading(values, began)
            return


async def fetch(http: aiohttp.ClientSession, url: str) -> Mapping[str, float]:
    """One request to one worker, which is not trusted: no redirect is followed, and no endless body read."""
    async with http.get(url, allow_redirects=False) as answer:
        if answer.status != HTTPStatus.OK:
            raise ScrapeError(f"{url} answered {answer.status}")
        return gauges([line async for line in _lines(answer)])


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Of a body that is not too long."""
    length = 0
    async for line in answer.content:
        length += len(line)
        if length > LONGEST_BODY:
            raise ScrapeError(f"{answer.url} tells more than {LONGEST_BODY} bytes")
        yield line.decode(errors="replace").rstrip("\n")
