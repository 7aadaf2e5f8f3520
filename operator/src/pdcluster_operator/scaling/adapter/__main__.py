"""`python -m pdcluster_operator.scaling.adapter`: the metrics adapter. Any number of them serve side by side."""

import asyncio
import functools
import sys
import time

import aiohttp
import structlog
from cryptography import x509

from pdcluster_operator.certificates import Pair
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.follow import Follower, News, Scope, one
from pdcluster_operator.kube import Kube, connection
from pdcluster_operator.process import listening, log_to_stderr, reasons, until_told_to_stop
from pdcluster_operator.resources import CONFIG_MAP as CONFIG_MAPS
from pdcluster_operator.resources import POD
from pdcluster_operator.scaling.adapter import application, callers
from pdcluster_operator.scaling.adapter.answerer import Answerer
from pdcluster_operator.scaling.adapter.door import Door
from pdcluster_operator.scaling.adapter.keeper import Keeper
from pdcluster_operator.scaling.adapter.metrics import AdapterMetrics
from pdcluster_operator.scaling.adapter.scraper import Scraper, fetch
from pdcluster_operator.scaling.adapter.settings import NAME, AdapterSettings, from_environment
from pdcluster_operator.scaling.adapter.workers import SELECTOR, Workers, worker_of

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0


class Adapter:
    """The parts, and what they tell each other. `run` until cancelled."""

    def __init__(self, settings: AdapterSettings, follower: Follower, kube: Kube, http: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._follower = follower
        self._metrics = AdapterMetrics()
        self._workers = Workers()
        self._scraper = Scraper(functools.partial(fetch, http), self._metrics)
        self._door = Door()
        self._keeper = Keeper(kube, follower, settings, self._show)

    async def run(self) -> None:
        """Raises an OperatorError, in a group, when it must not go on."""
        answerer = Answerer(self._workers, self._scraper)
        questions = application.questions(answerer, self._door, self._metrics)
        health = application.health(self._metrics, self._is_ready)
        settings = self._settings
        async with (
            listening(health, settings.host, settings.health_port, close_seconds=STOP_SECONDS),
            listening(questions, settings.host, settings.port, self._door.front, close_seconds=STOP_SECONDS),
        ):
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._keeper.run())
                    group.create_task(self._follow_callers())
                    group.create_task(self._follow_workers())
            finally:
                await self._scraper.close()

    def _is_ready(self) -> bool:
        return self._door.is_open and self._keeper.is_registered and self._workers.known_since is not None

    def _show(self, leaf: Pair) -> None:
        self._door.show(leaf)
        ends = x509.load_pem_x509_certificate(leaf.certificate).not_valid_after_utc
        self._metrics.certificate_ends.set(ends.timestamp())

    async def _follow_callers(self) -> None:
        async for found in self._follower.states(one(CONFIG_MAPS, callers.NAMESPACE, callers.CONFIG_MAP)):
            try:
                self._door.expect(callers.callers_of(found))
            except (callers.CallersError, ValueError) as error:
                log.error("front_proxy_unknown", reason=str(error))
                self._door.expect(None)

    async def _follow_workers(self) -> None:
        async for change in self._follower.changes(Scope(POD, label_selector=SELECTOR)):
            if change.news is News.LISTING:
                self._workers.begin()
            elif change.news is News.CHANGED:
                self._workers.put(worker_of(change.manifest))
            elif change.news is News.GONE:
                self._forget(change.manifest["metadata"]["uid"])
            elif change.news is News.COMPLETE:
                for uid in self._workers.complete(time.monotonic()):
                    self._scraper.forget(uid)
            else:
                self._workers.lost(time.monotonic())
            self._metrics.workers.set(len(self._workers))

    def _forget(self, uid: str) -> None:
        self._workers.remove(uid)
        self._scraper.forget(uid)


async def serve(settings: AdapterSettings) -> None:
    """Until cancelled."""
    timeout = aiohttp.ClientTimeout(total=STOP_SECONDS)
    # A new connection for each reading: between two there is time for any connection to be closed.
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        connection(settings.kubeconfig or None) as opened,
        aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as http,
    ):
        kube = Kube(opened, remaining=lambda: float("inf"), manager=NAME)
        await Adapter(settings, Follower(opened), kube, http).run()


def main() -> int:
    """The exit status: 0 after SIGTERM, 1 when it cannot go on."""
    log_to_stderr()
    try:
        asyncio.run(until_told_to_stop(serve(from_environment())))
    except* OperatorError as group:
        log.error("failed", reason="; ".join(reasons(group)))
        return_code = 1
    else:
        return_code = 0
    return return_code


if __name__ == "__main__":
    sys.exit(main())
