"""CPU speed against the arithmetic bound of the same run. `make bench-cpu`; QUICK=1 for a short one.

A random checkpoint of ERNIE-4.5-0.3B's shape, greedy, through the whole HTTP path: (i) one mixed worker on both
cores, (ii) a prefill and a decode worker with a core each. The bound holds the matrix products alone
(cpu_products.py), of full steps: for (i) all prefill steps and then every decode step of the whole batch; for (ii) the
longer of the two stages on one core, plus the first request's prefill and the last request's decode.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from load_deployment import Deployment, WorkerSpec
from random_checkpoint import LAYERS, random_checkpoint
from report import QUICK, at_most, finish, say, table

from pdcluster_worker.ipc.startup import THREAD_VARIABLES

REQUESTS, PROMPT, OUTPUT = (8, 64, 16) if QUICK else (32, 256, 64)
BATCH_TOKENS = 2048
PRODUCTS_TIMEOUT = 1800.0
ANSWER_TIMEOUT = 590.0
"""Seconds: slow machines need minutes; the router's own limit is 600."""
ENGINE = {"max_batch_tokens": BATCH_TOKENS, "max_running_requests": REQUESTS, "max_model_length": 512}
CORES = sorted(os.sched_getaffinity(0))[:2]


@dataclass(frozen=True)
class Bound:
    """Seconds, and the reading bandwidth behind them in bytes/s."""

    seconds: float
    bandwidth: float


def products(threads: int, steps: Sequence[tuple[int, int]]) -> tuple[dict[tuple[int, int], float], float]:
    """Seconds of each (rows, sampled rows) step on `threads` cores."""
    names = [f"{rows}:{head}" for rows, head in steps]
    cores = ",".join(str(core) for core in CORES[:threads])
    script = str(Path(__file__).with_name("cpu_products.py"))
    command = [sys.executable, script, str(threads), cores, str(LAYERS), *names]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=PRODUCTS_TIMEOUT, env=environment)
    found = json.loads(done.stdout)
    return {step: found["seconds"][name] for step, name in zip(steps, names, strict=True)}, found["bandwidth"]


def prefill_steps() -> list[tuple[int, int]]:
    """(rows, rows sampled) of each step that computes prompts only."""
    per_step = BATCH_TOKENS // PROMPT
    counts = [min(per_step, REQUESTS - start) for start in range(0, REQUESTS, per_step)]
    return [(count * PROMPT, count) for count in counts]


def mixed_bound() -> Bound:
    steps, decode = prefill_steps(), (REQUESTS, REQUESTS)
    seconds, bandwidth = products(2, [*dict.fromkeys([*steps, decode])])
    return Bound(sum(seconds[step] for step in steps) + (OUTPUT - 1) * seconds[decode], bandwidth)


def disaggregated_bound() -> Bound:
    steps, decode, first, last = prefill_steps(), (REQUESTS, REQUESTS), (PROMPT, 1), (1, 1)
    seconds, bandwidth = products(1, [*dict.fromkeys([*steps, decode, first, last])])
    prefill, decoding = sum(seconds[step] for step in steps), (OUTPUT - 1) * seconds[decode]
    return Bound(max(prefill, decoding) + seconds[first] + (OUTPUT - 1) * seconds[last], bandwidth)


def prompt(number: int) -> list[int]:
    return [3 + (number * 7919 + position * 104729) % 100_000 for position in range(PROMPT)]


def peak_rss(cluster: Deployment) -> int:
    """Bytes, summed over all engines and executors."""
    pids = [pid for worker in cluster.workers for pid in (worker.pid, *worker.executor_pids())]
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def run(model: Path, specs: list[WorkerSpec], bound: Bound) -> dict[str, float]:
    with Deployment(specs, model) as cluster:
        cluster.complete([{"prompt": [5, 6, 7], "max_tokens": 3, "ignore_eos": True}])
        bodies = [{"prompt": prompt(i), "max_tokens": OUTPUT, "ignore_eos": True} for i in range(REQUESTS)]
        start = time.perf_counter()
        answers = cluster.complete(bodies, timeout=ANSWER_TIMEOUT)
        seconds = time.perf_counter() - start
        assert all(len(answer.tokens) == OUTPUT for answer in answers), [answer.error for answer in answers]
        start_seconds = max(float(worker.ready["load_seconds"]) for worker in cluster.workers)
        return {
            "output_tokens_per_second": REQUESTS * OUTPUT / seconds,
            "seconds": seconds,
            "bound_seconds": bound.seconds,
            "ratio_to_bound": seconds / bound.seconds,
            "peak_rss_bytes": peak_rss(cluster),
            "read_bytes_per_second": bound.bandwidth,
            "load_seconds": start_seconds,
        }


def main() -> None:
    model = random_checkpoint()
    say(f"{REQUESTS} requests of {PROMPT} tokens in and {OUTPUT} out, ERNIE-4.5-0.3B's shape, float32, greedy")
    one, other = (str(core) for core in (CORES[0], CORES[-1]))
    mixed = [WorkerSpec("mixed", {**ENGINE, "threads": 2})]
    pair = [
        WorkerSpec("prefill", {**ENGINE, "threads": 1, "cpu_affinity": one, "kv_protocol": "IPC"}),
        WorkerSpec("decode", {**ENGINE, "threads": 1, "cpu_affinity": other, "kv_protocol": "IPC"}),
    ]
    figures = {"mixed": run(model, mixed, mixed_bound()), "disaggregated": run(model, pair, disaggregated_bound())}
    names = list(figures["mixed"])
    table(["", *names], [[case, *(row[name] for name in names)] for case, row in figures.items()])
    finish("cpu", figures, [at_most("mixed.ratio_to_bound", 1.3), at_most("disaggregated.ratio_to_bound", 1.6)])


if __name__ == "__main__":
    main()
