"""A Hugging Face hub on loopback, on a thread of its own: one repository with one commit, and faults on demand."""

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO = "owner/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
RANGE = re.compile(r"bytes=(\d+)-$")


@dataclass
class Hub:
    """`large` files are known by SHA-256, the others by git's hash. `requests`: path, first byte, bearer's token."""

    files: dict[str, bytes]
    large: set[str] = field(default_factory=set)
    token: str = ""
    corrupt: set[str] = field(default_factory=set)
    """Files that arrive with one byte changed, once."""
    cut: dict[str, int] = field(default_factory=dict)
    """After how many bytes a file's connection breaks, every time until it is taken out."""
    requests: list[tuple[str, int, str]] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def told(self) -> dict[str, Any]:
        """The repository as `/api/models` tells it."""
        return {"_id": "1", "id": REPO, "modelId": REPO, "sha": COMMIT, "siblings": [*map(self._sibling, self.files)]}

    def _sibling(self, name: str) -> dict[str, Any]:
        content = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
        if name in self.large:
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 130}
        return entry


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        found = RANGE.search(self.headers.get("Range", ""))
        first, token = int(found[1]) if found else 0, self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.served.requests.append((path, first, token))
        if self.served.token not in ("", token):
            self._answer(401, b'{"error": "Invalid credentials"}')
        elif path in (
            f"/api/models/{REPO}",
            f"/api/models/{REPO}/revision/main",
            f"/api/models/{REPO}/revision/{COMMIT}",
        ):
            self._answer(200, json.dumps(self.served.told()).encode())
        elif path.removeprefix(f"/{REPO}/resolve/{COMMIT}/") in self.served.files:
            self._file(path.rpartition("/")[2], first)
        else:
            self._answer(404, b"{}")

    def _file(self, name: str, first: int) -> None:
        content = self.served.files[name]
        if name in self.served.corrupt:
            self.served.corrupt.discard(name)
            content = content[:-1] + bytes([content[-1] ^ 1])
        end = self.served.cut.get(name, len(content))
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[first : max(end, first)])
        if end < len(content):
            self.close_connection = True

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
