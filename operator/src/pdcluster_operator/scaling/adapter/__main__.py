"""`python -m pdcluster_operator.scaling.adapter`: the metrics adapter. Any number of them serve side by side."""

import asyncio
import contextlib
import functools
import logging
import signal
import sys
import time
from collections.abc import AsyncIterator

import aiohttp
import structlog
from aiohttp import web
from cryptography import x509

from pdcluster_operator.certificates import Pair
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.kube import Kube, connection
from pdcluster_operator.resources import CONFIG_MAP as CONFIG_MAPS
from pdcluster_operator.resources import POD
from pdcluster_operator.scaling.adapter import application, callers
from pdcluster_operator.scaling.adapter.answerer import Answerer
from pdcluster_operator.scaling.adapter.door import Door
from pdcluster_operator.scaling.adapter.follow import Follower, News, Scope, one
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
            _listening(health, settings.host, settings.health_port),
            _listening(questions, settings.host, settings.port, self._door),
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


@contextlib.asynccontextmanager
async def _listening(app: web.Application, host: str, port: int, door: Door | None = None) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=door.front if door else None).start()
    try:
        yield
    finally:
        await runner.cleanup()


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


async def _until_told_to_stop(settings: AdapterSettings) -> None:
    serving = asyncio.create_task(serve(settings))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def main() -> int:
    """The exit status: 0 after SIGTERM, 1 when it cannot go on."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        asyncio.run(_until_told_to_stop(from_environment()))
    except* OperatorError as group:
        log.error("failed", reason="; ".join(reasons(group)))
        return_code = 1
    else:
        return_code = 0
    return return_code


def reasons(error: BaseException) -> list[str]:
    """Of an error, or of all in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for entry in error.exceptions for reason in reasons(entry)]
    return [str(error) or type(error).__name__]


if __name__ == "__main__":
    sys.exit(main())
