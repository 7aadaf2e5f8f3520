"""`make demo`: `pdc run` with two prefill and two decode workers, one streamed answer, and proof of where it came from.

Exit status 0 only if the prompt was computed by one worker, the tokens came from another, and KV bytes moved between
them.
"""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from pdcluster_operator.cli.client import ChatClient, Message, Piece, Stages
from pdcluster_operator.errors import EndpointError

MANIFEST = Path(__file__).resolve().parents[1] / "manifests" / "samples" / "demo.yaml"
QUESTION = "What is the capital of France?"
STOP_LIMIT = 15.0
MOVED = re.compile(r"^pdc_kv_transfer_bytes_total(?:\{[^}]*\})? ([0-9.e+]+)$", re.MULTILINE)


def moved_bytes(client: ChatClient, processes: list[dict[str, Any]]) -> dict[str, float]:
    """KV bytes written so far, by prefill worker."""
    found = {}
    for process in processes:
        if process["role"] == "prefill":
            found[process["name"]] = sum(float(value) for value in MOVED.findall(client.metrics(process["metrics"])))
    return found


def ask(client: ChatClient, console: Console) -> Stages:
    """Print the answer as it streams."""
    stages = Stages()
    console.print(f"\n[bold]{QUESTION}[/bold]")
    for piece in client.stream(client.first_model(), [Message("user", QUESTION)], temperature=0, max_tokens=64):
        if isinstance(piece, Piece):
            print(piece.text, end="", flush=True)
        else:
            stages = piece
    print("\n")
    return stages


def show(console: Console, stages: Stages, moved: dict[str, float], elapsed: float) -> None:
    table = Table("stage", "time", "where", box=SIMPLE, pad_edge=False)
    where = {
        "prefill": stages.prefill_worker,
        "first_token": stages.prefill_worker,
        "reserve": stages.decode_worker,
        "transfer": f"{moved.get(stages.prefill_worker, 0) / 1024:,.0f} KiB of KV cache to {stages.decode_worker}",
        "decode": stages.decode_worker,
    }
    for name, seconds in stages.seconds.items():
        table.add_row(name.replace("_", " "), f"{seconds * 1000:.1f} ms", where.get(name, ""))
    console.print(table)
    console.print(f"ready after {elapsed:.1f} s")


def proven(stages: Stages, moved: dict[str, float]) -> bool:
    """Two workers took part, and the one that computed the prompt wrote KV into the other."""
    prefill, decode = stages.prefill_worker, stages.decode_worker
    return bool(prefill and decode and prefill != decode and moved.get(prefill, 0) > 0)


def demonstrate(line: str, console: Console, elapsed: float) -> bool:
    state = json.loads(line)
    with ChatClient(state["endpoint"]) as client:
        before = moved_bytes(client, state["processes"])
        stages = ask(client, console)
        after = moved_bytes(client, state["processes"])
    moved = {name: after[name] - before[name] for name in after}
    show(console, stages, moved, elapsed)
    return proven(stages, moved)


def main() -> int:
    console, started = Console(highlight=False), time.monotonic()
    command = [sys.executable, "-m", "pdcluster_operator.cli.main", "run", "-f", str(MANIFEST), "--json"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    try:
        line = run.stdout.readline()
        if not line:
            return run.wait() or 1
        if not demonstrate(line, console, time.monotonic() - started):
            print("demo: the answer did not take the way that it should have", file=sys.stderr)
            return 1
    except EndpointError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
        status = run.wait(STOP_LIMIT)
    return status


if __name__ == "__main__":
    sys.exit(main())
