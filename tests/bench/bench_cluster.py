"""Workers as real processes for the benchmarks: made-up models by profile, one start and one end for all.

Import it before anything of tests/support: it puts that folder on the path.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import psutil
from load_client import LoadWorker
from worker_processes import WorkerProcess, start_worker

Profile = Mapping[str, object]

TINY_KV: Profile = {
    "layers": 1,
    "kv_heads": 1,
    "head_dim": 4,
    "dtype": "float16",
    "vocab_size": 100_000,
    "max_model_length": 8192,
    "verification": "off",
}
"""A model that takes no time and whose KV is 1 KiB per block."""
START_TIMEOUT = 60.0


@contextmanager
def simulated_workers(*wanted: tuple[str, Profile, Mapping[str, object]]) -> Iterator[list[WorkerProcess]]:
    """Each of (role, profile, options as `start_worker` has them); all ready. They end with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = [
            stack.enter_context(start_simulated(folder, number, role, profile, options))
            for number, (role, profile, options) in enumerate(wanted)
        ]
        for worker in workers:
            worker.wait_for("ready", START_TIMEOUT)
        yield workers


def start_simulated(
    folder: Path, number: int, role: str, profile: Profile, options: Mapping[str, object]
) -> WorkerProcess:
    """Not ready yet."""
    path = folder / f"profile-{number}.json"
    path.write_text(json.dumps(dict(profile)))
    settings = {"runner": "Simulated", "profile": path, "kv_protocol": "IPC", "threads": 1} | dict(options)
    return start_worker(role, folder, name=f"{role}-{number}", wait=False, **settings)


def load_workers(workers: Sequence[WorkerProcess]) -> list[LoadWorker]:
    return [LoadWorker(worker.role, worker.address) for worker in workers]


def cpu_seconds(workers: Sequence[WorkerProcess], router: int | None = None) -> dict[str, float]:
    """Processor time so far, of each worker's engine and executor, of the router (its pid) and of this process."""
    parts = {"load_client": _cpu(psutil.Process())}
    if router is not None:
        parts["router"] = _cpu(psutil.Process(router))
    for worker in workers:
        parts[f"{worker.name}.engine"] = _cpu(psutil.Process(worker.pid))
        for child in psutil.Process(worker.pid).children():
            parts[f"{worker.name}.executor"] = _cpu(child)
    return parts


def cpu_between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def check_nothing_held(workers: Sequence[WorkerProcess]) -> None:
    """Every lease ended, every block free or prefix cache, on every worker."""
    for worker in workers:
        worker.check_nothing_held()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
