"""What the operator counts, for Prometheus. One registry per process."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pdcluster_operator.kube import Call


class Metrics:
    """Every instrument by name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "pdc_operator_api_calls", "requests to the API server", ["verb", "kind", "code"], registry=self.registry
        )
        self.turns = Histogram("pdc_operator_turn_seconds", "one turn of one PDCluster", registry=self.registry)
        self.failures = Counter("pdc_operator_turn_failures", "turns that failed", ["reason"], registry=self.registry)
        self._queue = Gauge("pdc_operator_queue", "PDClusters that wait for a turn", registry=self.registry)
        self.leading = Gauge("pdc_operator_leading", "1 while this process acts", registry=self.registry)

    def called(self, call: Call) -> None:
        self._calls.labels(call.verb, call.kind, str(call.status)).inc()

    def watch_queue(self, length: Callable[[], int]) -> None:
        self._queue.set_function(length)

    def application(self) -> web.Application:
        """HTTP: `/metrics`, and `/health` for the kubelet."""
        app = web.Application()
        app.router.add_get("/metrics", self._show)
        app.router.add_get("/health", _alive)
        return app

    async def _show(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _alive(_: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})
