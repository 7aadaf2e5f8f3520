"""Requests per second through preparation, reservation, transfer and hand-off. `make bench-prepare`.

One prefill and one decode worker whose model takes no time, with KV of 1 KiB per block. Each request has 1,280 prompt
tokens; the decode worker holds it for 50 ms (two output tokens, a decode step of 50 ms, 1,024 slots). The rate is that
from the first Submit to the last Finished, with every token received and no lease left.
"""

import asyncio
import time

from bench_cluster import TINY_KV, check_nothing_held, cpu_between, cpu_seconds, load_workers, simulated_workers
from load_client import LoadClient, LoadRequest
from report import QUICK, at_least, finish, table
from seed_workload import prompt_tokens

REQUESTS = 5_000 if QUICK else 20_000
PROMPT = 1280
BLOCKS_PER_REQUEST = PROMPT // 64 + 1
SLOTS = 1024
IN_FLIGHT = 2048
THREADS = (1, 2, 5, 16)
MAIN_THREADS = 5
COMMON = {"max_running_requests": SLOTS, "prefix_caching": False, "kv_blocks": 2 * SLOTS * BLOCKS_PER_REQUEST}
DECODE_PROFILE = TINY_KV | {"decode": {"base": 0.05}}


def make_requests() -> list[LoadRequest]:
    """All different from their first token on."""
    body = prompt_tokens(0, PROMPT - 1, 100_000)
    return [LoadRequest((number + 3).to_bytes(4, "little") + body, max_tokens=2) for number in range(REQUESTS)]


def measure(threads: int, requests: list[LoadRequest]) -> tuple[float, dict[str, float]]:
    """Requests per second, and microseconds of processor time per request by part."""
    prefill = COMMON | {"prepare_threads": threads, "max_batch_tokens": 1 << 18}
    with simulated_workers(("prefill", TINY_KV, prefill), ("decode", DECODE_PROFILE, COMMON)) as workers:

        async def drive() -> tuple[float, dict[str, float]]:
            client = LoadClient(load_workers(workers), requests, IN_FLIGHT)
            await client.connect()
            before = cpu_seconds(workers)
            started = time.monotonic()
            ledger = await client.run()
            seconds = time.monotonic() - started
            used = cpu_between(before, cpu_seconds(workers))
            await client.close()
            assert not ledger.failures, list(ledger.failures.items())[:5]
            assert int(ledger.received.sum()) == 2 * REQUESTS
            return REQUESTS / seconds, {name: value / REQUESTS * 1e6 for name, value in used.items()}

        result = asyncio.run(drive())
        check_nothing_held(workers)
        return result


def main() -> None:
    requests = make_requests()
    rates: dict[str, float] = {}
    parts: dict[str, dict[str, float]] = {}
    for threads in THREADS:
        rate, used = measure(threads, requests)
        rates[str(threads)] = rate
        parts[str(threads)] = used
    table(["prepare threads", "requests/s"], [[int(name), rate] for name, rate in rates.items()])
    main_parts = parts[str(MAIN_THREADS)]
    table(["part", "CPU µs per request"], [[name, value] for name, value in main_parts.items()])
    figures = {
        "requests_per_second": rates[str(MAIN_THREADS)],
        "by_threads": rates,
        "cpu_microseconds_by_part": main_parts,
    }
    finish("prepare", figures, [at_least("requests_per_second", 4500)])


if __name__ == "__main__":
    main()
