"""A router and fake workers on a thread of their own, for tests that use blocking or asynchronous HTTP clients."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from router_fake_worker import FakeWorker, Script

from pdcluster_worker.core.wire import Role
from pdcluster_worker.models.tokenizer import load_tokenizer
from pdcluster_worker.router.api_keys import APIKeys
from pdcluster_worker.router.config import RouterConfig, StaticWorker
from pdcluster_worker.router.http_server import listen
from pdcluster_worker.router.main import RouterServer

MODEL = Path(__file__).parents[1] / "golden" / "ernie45-tiny"
T = TypeVar("T")


class RouterHarness:
    """`roles` are the workers to start. Everything of the router runs on `loop`; `call` runs a coroutine there."""

    def __init__(self, *roles: Role, script: Script | None = None, wait_ready: bool = True, **settings: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory: dict[str, FakeWorker] = {}
        self.script = script or Script()
        self.workers = [
            FakeWorker(role, f"{role.value}-{i}", self.directory, self.script) for i, role in enumerate(roles)
        ]
        self.url = ""
        self.server: RouterServer
        self._settings = settings
        self._wait_ready = wait_ready
        self._thread = threading.Thread(target=self.loop.run_forever, name="router")

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.call(self._start())
            if self._wait_ready and self.workers:
                self.call(asyncio.wait_for(self.until(self.server.fleet.ready), 10))
        except BaseException:
            self._stop_thread()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.call(self._stop())
        finally:
            self._stop_thread()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    async def until(self, condition: Any) -> None:
        """Waits for the condition, asked after every turn of the loop."""
        while not condition():
            await asyncio.sleep(0.005)

    def wait(self, condition: Any) -> None:
        self.call(asyncio.wait_for(self.until(condition), 15))

    def named(self, role: Role) -> list[FakeWorker]:
        return [worker for worker in self.workers if worker.role is role]

    def leaks(self) -> list[str]:
        """What the router or the fakes still hold, for the end of a test."""
        dispatcher = self.server.dispatcher
        found = [f"open jobs: {dispatcher.open_jobs}"] if dispatcher.open_jobs else []
        found += [f"{link.address} entries" for link in self.server.fleet.links if link.entries]
        found += [f"{link.address} outstanding" for link in self.server.fleet.links if link.outstanding_tokens]
        found += [f"{worker.name} holds {len(worker.held)}" for worker in self.workers if worker.held]
        return found

    async def _start(self) -> None:
        for worker in self.workers:
            await worker.start()
        listener = listen("127.0.0.1", 0)
        config = RouterConfig(
            model_path=MODEL,
            model_name="fake",
            workers=tuple(StaticWorker(worker.role, worker.address) for worker in self.workers),
            reattach_grace=1.0,
        )
        config = msgspec.structs.replace(config, **self._settings)
        self.server = RouterServer(config, APIKeys(config.api_key_file), listener, load_tokenizer(MODEL))
        await self.server.__aenter__()
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    async def _stop(self) -> None:
        await self.server.__aexit__(None, None, None)
        for worker in self.workers:
            await worker.kill()

    def _stop_thread(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)
