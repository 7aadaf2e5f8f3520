"""The router process: HTTP server and worker links in one asyncio loop, from the first line to the last."""

import asyncio
import contextlib
import signal
import socket
import time
import uuid

import structlog

from pdcluster_worker.models.tokenizer import Tokenizer, load_tokenizer
from pdcluster_worker.router.api_keys import APIKeys
from pdcluster_worker.router.app import API, make_app
from pdcluster_worker.router.config import RouterConfig, StaticWorker
from pdcluster_worker.router.discovery import discover
from pdcluster_worker.router.dispatcher import Dispatcher
from pdcluster_worker.router.errors import overloaded
from pdcluster_worker.router.fleet import Fleet
from pdcluster_worker.router.http_server import listen, serving
from pdcluster_worker.router.link import Link, LinkSettings
from pdcluster_worker.router.metrics import RouterMetrics
from pdcluster_worker.router.sampling import Limits
from pdcluster_worker.router.serving import Serving
from pdcluster_worker.router.tracing import Tracing
from pdcluster_worker.splitwise.channel import open_channel
from pdcluster_worker.splitwise.tls import TLSIdentity

DEFAULT_LENGTH, DEFAULT_VOCABULARY = 8192, 2**31
_log = structlog.get_logger()


def run_router(config: RouterConfig) -> int:
    """Runs until SIGTERM or SIGINT; returns the exit status. ConfigError and CheckpointError when it cannot start."""
    _log.info("starting", name=config.name)
    keys = APIKeys(config.api_key_file)
    listener = listen(config.host, config.port)
    tokenizer = load_tokenizer(config.model_path)
    with asyncio.Runner(loop_factory=_loop_factory) as runner:
        runner.run(_serve(config, keys, listener, tokenizer))
    return 0


def _loop_factory() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _serve(config: RouterConfig, keys: APIKeys, listener: socket.socket, tokenizer: Tokenizer) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with RouterServer(config, keys, listener, tokenizer) as server:
        host, port = listener.getsockname()[:2]
        _log.info("ready", name=config.name, address=f"{host}:{port}", instance_id=server.router_id)
        server.discovery.add_done_callback(lambda task: stop.set() if _failed(task) else None)
        await stop.wait()
        if _failed(server.discovery):
            server.discovery.result()
        _log.info("draining", requests=server.dispatcher.open_jobs)
        await server.drain()


class RouterServer:
    """Everything of a running router, as an async context; in tests it runs beside its workers."""

    def __init__(self, config: RouterConfig, keys: APIKeys, listener: socket.socket, tokenizer: Tokenizer) -> None:
        self.router_id = uuid.uuid4().hex
        self.metrics = RouterMetrics()
        self.dispatcher = Dispatcher(config, self.metrics)
        self._config = config
        self._tracing = Tracing(config.trace_endpoint, config.name)
        identity = TLSIdentity(config.tls, config.cluster) if config.tls is not None else None
        self._settings = LinkSettings(
            router_id=self.router_id,
            model=config.model_name,
            revision=config.revision,
            open_channel=lambda address, role: open_channel(address, role, identity, config.max_message_bytes),
        )
        self.fleet = self.dispatcher.fleet = Fleet(self._make_link, fallback_limits(tokenizer))
        self._serving = Serving(config, tokenizer, self.dispatcher, self.metrics, self._tracing)
        self._app = make_app(API(self._serving, self.fleet, keys, int(time.time())))
        self._listeners = [listener]
        if config.metrics_port is not None:
            self._listeners.append(listen(config.host, config.metrics_port))
        self._stack = contextlib.AsyncExitStack()
        self.discovery: asyncio.Task[None]

    def _make_link(self, worker: StaticWorker) -> Link:
        return Link(worker.address, worker.role, self.dispatcher, self._settings)

    async def set_workers(self, workers: tuple[StaticWorker, ...]) -> None:
        self.fleet.set_workers(workers)
        for link in self.fleet.retired_idle():
            self.dispatcher.drop_link(link)
            await link.close()

    async def __aenter__(self) -> "RouterServer":
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._tracing.close)
            stack.push_async_callback(self._close_links)
            for listener in self._listeners:
                await stack.enter_async_context(serving(self._app, listener))
            self.discovery = asyncio.create_task(discover(self._config, self.set_workers, self.fleet.set_gone))
            stack.push_async_callback(_cancelled, self.discovery)
            self._stack = stack.pop_all()
        return self

    async def drain(self) -> None:
        """Unready at once; returns when open requests have ended, or at the drain timeout."""
        self._serving.draining = True
        await self.dispatcher.idle(self._config.drain_timeout)
        self.dispatcher.cancel_all(overloaded("the router is shutting down", 1.0))

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _close_links(self) -> None:
        await asyncio.gather(*(link.close() for link in self.fleet.links))


def _failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def fallback_limits(tokenizer: Tokenizer) -> Limits:
    defaults = tokenizer.defaults
    return Limits(defaults.max_model_length or DEFAULT_LENGTH, defaults.vocab_size or DEFAULT_VOCABULARY)
