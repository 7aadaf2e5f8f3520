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
from worker_processes import WorkerProcess, worker_arguments

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
    """Each of (role, profile, options as `start_worker` has them); all ready. Those in the list end with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = [
            stack.enter_context(start_simulated(folder, number, role, profile, options))
            for number, (role, profile, options) in enumerate(wanted)
        ]
        for worker in workers:
            worker.wait_for("ready", START_TIMEOUT)
        try:
            yield workers
        finally:
            for worker in workers:
                worker.close()


def start_simulated(
    folder: Path, number: int, role: str, profile: Profile | Path, options: Mapping[str, object]
) -> WorkerProcess:
    """Not ready yet. `folder` keeps the profile where it is not a file already."""
    return WorkerProcess(role, f"{role}-{number}", *simulated_arguments(folder, number, profile, options))


class BlockingWorker(WorkerProcess):
    """A prefill worker that prepares as the seed did: see blocking.py."""

    program = (str(Path(__file__).with_name("blocking.py")),)


def start_blocking(
    folder: Path, number: int, strategy: str, profile: Profile | Path, options: Mapping[str, object]
) -> WorkerProcess:
    arguments = simulated_arguments(folder, number, profile, options)
    return BlockingWorker("prefill", f"prefill-{number}", *arguments, environment={"PDC_BENCH_STRATEGY": strategy})


def simulated_arguments(folder: Path, number: int, profile: Profile | Path, options: Mapping[str, object]) -> list[str]:
    if not isinstance(profile, Path):
        path = folder / f"profile-{number}.json"
        path.write_text(json.dumps(dict(profile)))
        profile = path
    settings = {"runner": "Simulated", "profile": profile, "kv_protocol": "IPC", "threads": 1}
    return worker_arguments(folder, settings | dict(options))


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
