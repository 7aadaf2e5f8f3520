"""A pod that pretends: it takes a worker's or router's command line, says the same lines, and listens on its ports.

`FAKE_FAIL` makes its start fail with that reason, `FAKE_EXIT` makes it end with that status, `FAKE_HANG` never ready,
`FAKE_STUBBORN` deaf to SIGTERM. Like a worker it has a child process that dies with it; with `FAKE_ORPHAN` it does not.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WAIT = "import signal; signal.pause()"
DIE_WITH_PARENT = "import ctypes; ctypes.CDLL(None).prctl(1, 9);"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"fake_metric 1\n")

    def log_message(self, *_: object) -> None:
        pass


def say(**fields: object) -> None:
    print(json.dumps(fields), file=sys.stderr, flush=True)


def flag(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def main() -> None:
    if status := os.environ.get("FAKE_EXIT"):
        print("Error: no such option", file=sys.stderr)
        sys.exit(int(status))
    say(event="starting", level="info")
    say(event="loading", fraction=0.5)
    if reason := os.environ.get("FAKE_FAIL"):
        say(event="failed", reason=reason)
        sys.exit(1)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, (lambda *_: None) if "FAKE_STUBBORN" in os.environ else (lambda *_: stop.set()))
    subprocess.Popen([sys.executable, "-c", WAIT if "FAKE_ORPHAN" in os.environ else DIE_WITH_PARENT + WAIT])
    is_router = "router" in sys.argv
    http = ThreadingHTTPServer(("127.0.0.1", int(flag("--port" if is_router else "--metrics-port"))), Answer)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    if not is_router:
        listener = socket.create_server(("127.0.0.1", int(flag("--grpc-port"))))
        listener.listen()
    print("a library prints this on stdout", flush=True)
    if "FAKE_HANG" not in os.environ:
        say(event="ready", instance_id="0", address="127.0.0.1:1")
    stop.wait()


if __name__ == "__main__":
    main()
