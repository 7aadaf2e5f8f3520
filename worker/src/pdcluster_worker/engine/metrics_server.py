"""HTTP on the metrics port: /metrics, /health (the process lives), /ready (its model is loaded and served)."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pdcluster_worker.errors import ConfigError

CLIENT_TIMEOUT = 5.0


class MetricsServer:
    """Serves from a thread of its own until `close`."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        """Raises ConfigError when the port cannot be had."""

        self._opened = threading.Event()

        class Handler(_Handler):
            metrics = registry
            opened = self._opened

        try:
            self._server = _Server((host, port), Handler)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def open(self) -> None:
        """From now on the worker is ready."""
        self._opened.set()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(CLIENT_TIMEOUT)


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    metrics: CollectorRegistry
    opened: threading.Event
    timeout = CLIENT_TIMEOUT
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._reply(200, CONTENT_TYPE_LATEST, generate_latest(self.metrics))
        elif path == "/health":
            self._reply(200, "application/json", b'{"status": "alive"}')
        elif path == "/ready":
            ready = self.opened.is_set()
            self._reply(200 if ready else 503, "application/json", b'{"ready": true}' if ready else b'{"ready": false}')
        else:
            self._reply(404, "text/plain", b"not here\n")

    def _reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Scrapes are not worth a line."""
