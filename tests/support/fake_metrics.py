"""Worker metrics for pods that KWOK plays: each is served at its pod's own loopback address, and set by the test."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from cluster_client import Client, Manifest

PORT = 8000


class FakeMetrics:
    """`gauges` are what every pod tells; `of_pod` what one of them tells instead. A pod in `silent` answers 500."""

    def __init__(self) -> None:
        self.gauges: dict[str, float] = {}
        self.of_pod: dict[str, dict[str, float]] = {}
        self.silent: set[str] = set()
        self.reads = 0
        self._runners: dict[str, web.AppRunner] = {}

    async def serve(self, pod: Manifest) -> None:
        """From now on, at the pod's address; a second call for the same address does nothing."""
        address, name = pod["status"]["podIP"], pod["metadata"]["name"]
        if address in self._runners:
            return

        async def tell(_: web.Request) -> web.Response:
            self.reads += 1
            gauges = self.of_pod.get(name, self.gauges)
            text = "".join(f"# TYPE {key} gauge\n{key} {value}\n" for key, value in gauges.items())
            return web.Response(text=text, status=500 if name in self.silent else 200)

        app = web.Application()
        app.router.add_get("/metrics", tell)
        runner = self._runners[address] = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, address, PORT).start()

    async def follow(self, admin: Client, selector: str) -> None:
        """Serves every pod that has the labels and an address, until cancelled."""
        async for change in admin.follow(admin.path("v1/Pod"), {"labelSelector": selector}):
            for pod in change.listed if change.listed is not None else [change.changed]:
                if not change.deleted and pod.get("status", {}).get("podIP"):
                    await self.serve(pod)

    async def close(self) -> None:
        for runner in self._runners.values():
            await runner.cleanup()


@contextlib.asynccontextmanager
async def fake_metrics() -> AsyncIterator[FakeMetrics]:
    found = FakeMetrics()
    try:
        yield found
    finally:
        await found.close()
