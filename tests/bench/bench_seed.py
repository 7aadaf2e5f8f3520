"""The seed's workload on simulated H100s, prepared in four ways. `make bench-seed`; told in docs/seed-benchmark.md.

1,000 requests, 256 at a time, prompts of 1,280 and outputs of 700 tokens on average, one prefill and one decode worker
paced by a profile of ERNIE-4.5-0.3B, KV blocks of their real size moved over NIXL. Measured at `Inference.Stream`.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from bench_cluster import (
    check_nothing_held,
    cpu_between,
    cpu_seconds,
    load_workers,
    start_blocking,
    start_simulated,
)
from load_client import LoadClient, LoadRequest
from report import QUICK, Figure, at_most, finish, say, table
from seed_workload import Sizes, bound_seconds, ideal_seconds, prompt_tokens, workload
from worker_processes import WorkerProcess

from pdcluster_worker.executor.profile import Profile, load_profile

PROFILE_FILE = Path(__file__).parent / "profiles/h100-ernie45-0.3b.json"
REQUESTS = 320 if QUICK else 1000
OUTPUT_SHARE = 0.5 if QUICK else 1.0
CONCURRENCY = 256
START_TIMEOUT = 120.0
BUDGET = 8192
VOCABULARY = 103_424
STRATEGIES = {"blocking_ack_1": ("ack", 1), "blocking_1": ("pause", 1), "blocking_5": ("pause", 5), "ours": ("", 5)}
PREFILL = {"max_batch_tokens": BUDGET, "kv_blocks": 1024, "prefix_caching": False, "max_running_requests": 256}
DECODE = {"kv_blocks": 8192, "prefix_caching": False, "max_running_requests": CONCURRENCY}
"""8,192 blocks of 1,152 KiB: room for 256 requests of 2,048 tokens."""


def main() -> None:
    profile, sizes = load_profile(PROFILE_FILE), workload(REQUESTS, OUTPUT_SHARE)
    requests = [
        LoadRequest(prompt_tokens(number, size.prompt, VOCABULARY), size.output) for number, size in enumerate(sizes)
    ]
    bound = bound_seconds(profile, sizes, CONCURRENCY, BUDGET)
    figures = measure_all(requests, bound)
    columns = ["makespan_seconds", "ttft_p50", "ttft_p99", "inter_token_p50", "inter_token_p99", "ratio_to_bound"]
    table(["strategy", *columns], [[name, *(figures[name][key] for key in columns)] for name in STRATEGIES])  # type: ignore[index]
    figures |= summary(figures, profile, sizes, bound)
    finish("seed", figures, [at_most("ours.ratio_to_bound", 1.5)])


def summary(figures: dict[str, Figure], profile: Profile, sizes: Sequence[Sizes], bound: float) -> dict[str, Figure]:
    seed, ours = (figures[name]["makespan_seconds"] for name in ("blocking_5", "ours"))  # type: ignore[index]
    ideal = ideal_seconds(profile, sizes, CONCURRENCY, CONCURRENCY, BUDGET)
    say(f"bound {bound:.2f} s; without any overhead {ideal:.2f} s; ours is {seed / ours:.2f} times as fast as the seed")
    return {"speedup_over_seed": seed / ours, "bound_seconds": bound, "ideal_seconds": ideal}


def measure_all(requests: list[LoadRequest], bound: float) -> dict[str, Figure]:
    """By strategy. The decode worker, whose memory takes long to fill, serves all of them."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        decode = stack.enter_context(start_simulated(folder, 1, "decode", PROFILE_FILE, DECODE))
        decode.wait_for("ready", START_TIMEOUT)
        return {name: measure(name, folder, decode, requests, bound) for name in STRATEGIES}


def measure(name: str, folder: Path, decode: WorkerProcess, requests: list[LoadRequest], bound: float) -> Figure:
    """With a prefill worker of its own."""
    strategy, threads = STRATEGIES[name]
    options = PREFILL | {"prepare_threads": threads}
    if strategy:
        prefill = start_blocking(folder, 0, strategy, PROFILE_FILE, options)
    else:
        prefill = start_simulated(folder, 0, "prefill", PROFILE_FILE, options)
    with prefill:
        prefill.wait_for("ready", START_TIMEOUT)
        workers = [prefill, decode]
        result = asyncio.run(drive(name, workers, requests, bound))
        check_nothing_held(workers)
        return result


async def drive(name: str, workers: list[WorkerProcess], requests: list[LoadRequest], bound: float) -> Figure:
    client = LoadClient(load_workers(workers), requests, CONCURRENCY)
    await client.connect()
    before = cpu_seconds(workers)
    ledger = await client.run()
    used = cpu_between(before, cpu_seconds(workers))
    await client.close()
    assert not ledger.failures, list(ledger.failures.items())[:3]
    assert ledger.received.tolist() == [request.max_tokens for request in requests]
    makespan = ledger.makespan()
    shares = ", ".join(f"{part} {value / makespan:.2f}" for part, value in used.items())
    say(f"{name}: {makespan:.2f} s; processor seconds of each second: {shares}")
    first, gaps = ledger.times_to_first_token(), ledger.gaps()
    return {
        "makespan_seconds": makespan,
        "ttft_p50": float(np.quantile(first, 0.5)),
        "ttft_p99": float(np.quantile(first, 0.99)),
        "inter_token_p50": float(np.quantile(gaps, 0.5)),
        "inter_token_p99": float(np.quantile(gaps, 0.99)),
        "ratio_to_bound": makespan / bound,
    }


if __name__ == "__main__":
    main()
