"""A small external-metrics adapter, outside the cluster, whose values the test sets: it proves the autoscaler's loop.

The API server reaches it through a Service of type ExternalName that resolves to this host, with the front-proxy
certificate; the autoscaler reads it as `external.metrics.k8s.io`.
"""

import base64
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web
from cluster_certificates import Authority, Pair
from cluster_client import Client, Manifest
from cluster_process import Reservation

GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
API_SERVICE = f"v1beta1.{GROUP}"
NAME = "fake-adapter"


class FakeAdapter:
    """Serves `values`: metric name to quantity. An unknown metric is a 404, as in the real ones."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.callers: set[str] = set()
        """The users in whose name the API server asked."""

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get(f"/apis/{VERSION}", self._discover)
        app.router.add_get(f"/apis/{VERSION}/namespaces/{{namespace}}/{{metric}}", self._read)
        return app

    async def _discover(self, _: web.Request) -> web.Response:
        resource = {
            "name": "",
            "singularName": "",
            "namespaced": True,
            "kind": "ExternalMetricValueList",
            "verbs": ["get"],
        }
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [resource]}
        )

    async def _read(self, request: web.Request) -> web.Response:
        self.callers.add(request.headers.get("X-Remote-User", ""))
        metric = request.match_info["metric"]
        if metric not in self.values:
            return web.json_response(
                {"kind": "Status", "apiVersion": "v1", "code": 404, "reason": "NotFound"}, status=404
            )
        item = {
            "metricName": metric,
            "metricLabels": {},
            "timestamp": "2026-01-01T00:00:00Z",
            "value": self.values[metric],
        }
        return web.json_response({"kind": "ExternalMetricValueList", "apiVersion": VERSION, "items": [item]})


@contextlib.asynccontextmanager
async def serving(admin: Client, trust_of_callers: bytes | None) -> AsyncIterator[FakeAdapter]:
    """An adapter that is registered while the context lasts; it refuses callers without the front-proxy certificate."""
    adapter, authority = FakeAdapter(), Authority("fake-adapter-ca")
    pair = authority.issue(NAME, dns=[f"{NAME}.{admin.namespace}.svc"])
    runner = web.AppRunner(adapter.application(), access_log=None)
    await runner.setup()
    with contextlib.closing(Reservation()) as reserved:
        await web.TCPSite(runner, "127.0.0.1", reserved.port, ssl_context=_context(pair, trust_of_callers)).start()
        await admin.create(_service())
        await admin.create(_api_service(admin.namespace, reserved.port, authority.certificate))
        try:
            await admin.wait("apiregistration.k8s.io/v1/APIService", API_SERVICE, available)
            yield adapter
        finally:
            # First of all: a namespace does not go while an aggregated API does not answer.
            await admin.delete("apiregistration.k8s.io/v1/APIService", API_SERVICE)
            await admin.delete("v1/Service", NAME)
            await runner.cleanup()


def available(found: Manifest | None) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(entry["type"] == "Available" and entry["status"] == "True" for entry in conditions)


def _context(pair: Pair, trust_of_callers: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "tls.crt"), Path(folder, "tls.key")
        certificate.write_bytes(pair.certificate)
        key.write_bytes(pair.key)
        context.load_cert_chain(certificate, key)
    if trust_of_callers:
        context.load_verify_locations(cadata=trust_of_callers.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _service() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": 443}]},
    }


def foreign_api_service(service: str) -> Manifest:
    """External metrics as somebody else registers them; there is no such Service."""
    manifest = _api_service("monitoring", 443, b"")
    entry = {"name": service, "namespace": "monitoring", "port": 443}
    spec = {**manifest["spec"], "insecureSkipTLSVerify": True, "service": entry}
    return {**manifest, "spec": {key: value for key, value in spec.items() if key != "caBundle"}}


def _api_service(namespace: str, port: int, trust: bytes) -> Manifest:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": API_SERVICE},
        "spec": {
            "group": GROUP,
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"name": NAME, "namespace": namespace, "port": port},
            "caBundle": base64.b64encode(trust).decode(),
        },
    }
