"""Four prefill workers on two decode workers, for `make bench-starved`: what one of the four may do to the others."""

import asyncio
from collections.abc import Sequence

import numpy as np
from bench_cluster import TINY_KV, check_nothing_held, load_workers, simulated_workers
from load_client import LoadClient, LoadRequest
from load_link import WorkerLink
from report import Figure
from starved_load import DECODE_PROFILE, Prompts, Record

PREFILLS, DECODES = 4, 2
TOKENS_PER_SECOND = 20_000
BACKLOG = 100
"""Prompts of LONG tokens at one prefill worker: 6.4 s of work."""
LONG = 1280
OTHERS = 600
SMALL, BIG = 64, 4000
SMALL_REQUESTS = 3000
SMALL_IN_FLIGHT = 160
PREFILL_OPTIONS = {"max_running_requests": 256, "prefix_caching": False, "kv_blocks": 4096}
PREFILL_PROFILE = TINY_KV | {"prefill_tokens_per_second": TOKENS_PER_SECOND}
DECODE_OPTIONS = {"max_running_requests": 64, "prefix_caching": False, "kv_blocks": 128}
"""The big prompt needs half of a pool that small ones keep full."""


def crowd_figures() -> dict[str, Figure]:
    """`backlog`: waits for a lease at the prefill workers without backlog. `big_prompt`: the wait of the one."""
    wanted = [
        *[("prefill", PREFILL_PROFILE, PREFILL_OPTIONS)] * PREFILLS,
        *[("decode", DECODE_PROFILE, DECODE_OPTIONS)] * DECODES,
    ]
    with simulated_workers(*wanted) as workers:
        addresses = load_workers(workers)
        backlog = asyncio.run(_backlog(addresses))
        check_nothing_held(workers)
        big = asyncio.run(_big_prompt(addresses))
        check_nothing_held(workers)
    return {"backlog": backlog, "big_prompt": big}


async def _backlog(addresses: Sequence[object]) -> Figure:
    """BACKLOG requests go to the first prefill worker at once; small ones to the other three all the while."""
    requests = [*Prompts(BACKLOG, LONG, 2), *Prompts(OTHERS, SMALL, 2)]

    def choose(request: int, links: Sequence[WorkerLink]) -> WorkerLink:
        return links[0] if request < BACKLOG else links[1 + request % (PREFILLS - 1)]

    client = LoadClient(addresses, requests, BACKLOG + 24, choose=choose)  # type: ignore[arg-type]
    await client.connect()
    record = Record(await client.run())
    await client.close()
    others = record.waits(slice(BACKLOG, None))
    return {
        "completed": record.completed,
        "failed": record.failed,
        "others_wait_p50": float(np.quantile(others, 0.5)),
        "others_wait_p99": float(np.quantile(others, 0.99)),
        "backlogged_wait_p99": float(np.quantile(record.waits(slice(0, BACKLOG)), 0.99)),
    }


async def _big_prompt(addresses: Sequence[object]) -> Figure:
    """Small requests keep both decode workers full; the big one comes in their midst."""
    place = SMALL_REQUESTS // 4
    requests: list[LoadRequest] = list(Prompts(SMALL_REQUESTS, SMALL, 2))
    requests.insert(place, Prompts(1, BIG, 2)[0])
    client = LoadClient(addresses, requests, SMALL_IN_FLIGHT)  # type: ignore[arg-type]
    await client.connect()
    record = Record(await client.run())
    await client.close()
    small = np.concatenate((record.waits(slice(0, place)), record.waits(slice(place + 1, None))))
    return {
        "completed": record.completed,
        "failed": record.failed,
        "wait_seconds": float(record.waits(slice(place, place + 1))[0]),
        "small_wait_p50": float(np.quantile(small, 0.5)),
        "small_wait_p99": float(np.quantile(small, 0.99)),
    }
