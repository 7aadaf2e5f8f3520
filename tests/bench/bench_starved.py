"""One bad decode worker of four must cost its own share and nothing else. `make bench-starved`.

One prefill worker and four decode workers, each with 16 slots that hold a request for 50 ms: the decode side is the
limit. `rate_ratio` is the rate while the worker is bad over healthy rate times the share of workers with room (3/4).

| case | the fourth decode worker |
|---|---|
| full | all its slots and blocks belong to requests that do not end |
| freeing | those requests leave after 5 s |
| dying | is killed, and comes back as soon as it can start |
| silent | its link is accepted and never answered |
| falls_silent | the same, with a link that worked before |

Then four prefill workers on two decode workers: one of the four with a backlog, and one prompt of 4,000 tokens among
many of 64, both of which may delay the others only so much.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import TypeAlias

import psutil
from bench_cluster import TINY_KV, check_nothing_held, load_workers, simulated_workers
from link_proxy import LinkMode, LinkProxy
from load_client import LoadWorker
from report import QUICK, at_least, at_most, finish, say, table
from starved_crowd import crowd_figures
from starved_load import DECODE_OPTIONS, DECODE_PROFILE, PREFILL_OPTIONS, Hog, Interval, Record, SteadyLoad
from worker_processes import WorkerProcess

Case: TypeAlias = dict[str, float | int | None]
SETTLE = 0.7
MEASURE = 1.5 if QUICK else 6.0
FREE_AFTER = 5.0
AFTERWARDS = 1.5
DECODES = 4
NORMAL, LOWEST = 0, 19
BAD = DECODES
"""Index of the bad decode worker among a load's workers: the prefill worker is 0."""
SHARE = (DECODES - 1) / DECODES
TARGET_RATIO = 0.95
PREFILLS = 4
"""One for the load, one for the hog, and one each for the two cases in which a link is silent."""
COLUMNS = ("completed", "failed", "requests_per_second", "rate_ratio", "recovery_seconds")


def main() -> None:
    cases = asyncio.run(all_cases())
    table(["case", *COLUMNS], [[name, *(case[column] for column in COLUMNS)] for name, case in cases.items()])
    targets = [at_least(f"{name}.rate_ratio", TARGET_RATIO) for name in cases if name != "healthy"]
    targets += [at_most(f"{name}.failed", 0) for name in cases]
    targets += [at_most(f"{name}.recovery_seconds", 1.0) for name in ("dying", "freeing")]
    targets += [at_most("backlog.others_wait_p99", 1.0), at_most("big_prompt.wait_seconds", 5.0)]
    finish("starved", cases | crowd_figures(), targets)


async def all_cases() -> dict[str, Case]:
    """Each case leaves the workers as it found them; the one that kills comes last."""
    wanted = [("prefill", TINY_KV, PREFILL_OPTIONS)] * PREFILLS + [("decode", DECODE_PROFILE, DECODE_OPTIONS)] * DECODES
    with simulated_workers(*wanted) as workers:
        addresses = load_workers(workers)
        decodes = addresses[PREFILLS:]
        load = [addresses[0], *decodes]
        record, interval = await steadily(load)
        healthy = record.rate(interval)
        cases = {"healthy": case(record, healthy, healthy, 1.0)}
        cases["full"] = await full(load, Hog(addresses[1], decodes[-1]), healthy)
        cases["freeing"] = await freeing(load, Hog(addresses[1], decodes[-1]), healthy)
        cases["silent"] = await silent([addresses[2], *decodes], healthy, from_start=True)
        cases["falls_silent"] = await silent([addresses[3], *decodes], healthy, from_start=False)
        cases["dying"] = await dying(load, workers, healthy)
        await asyncio.to_thread(check_nothing_held, workers)
        return cases


async def steadily(load: Sequence[LoadWorker], kv_peers: int | None = None) -> tuple[Record, Interval]:
    steady = SteadyLoad(load)
    await steady.start(kv_peers)
    await steady.for_seconds(SETTLE)
    interval = await steady.for_seconds(MEASURE)
    return await steady.finish(), interval


async def full(load: Sequence[LoadWorker], hog: Hog, healthy: float) -> Case:
    await hog.fill()
    record, interval = await steadily(load)
    await hog.leave()
    return case(record, record.rate(interval), healthy, SHARE)


async def freeing(load: Sequence[LoadWorker], hog: Hog, healthy: float) -> Case:
    await hog.fill()
    steady = SteadyLoad(load)
    await steady.start()
    await steady.for_seconds(SETTLE)
    starved = await steady.for_seconds(FREE_AFTER - SETTLE)
    freed = await hog.leave()
    after = await steady.for_seconds(AFTERWARDS)
    record = await steady.finish()
    recovery = record.recovery_seconds(freed, after.end, BAD, healthy / DECODES)
    return case(record, record.rate(starved), healthy, SHARE, recovery)


async def dying(load: Sequence[LoadWorker], workers: list[WorkerProcess], healthy: float) -> Case:
    """The time without the worker is from its death until its successor's router stream is up."""
    steady = SteadyLoad(load)
    await steady.start()
    await steady.for_seconds(SETTLE)
    down_from = (await steady.for_seconds(0.0)).end
    workers[-1].kill()
    link = steady.client.link_to(load[BAD])
    workers[-1] = await asyncio.to_thread(restarted, workers[-1])
    while link.hello is None:
        steady.client.links_changed.clear()
        await steady.client.links_changed.wait()
    down = Interval(down_from, (await steady.for_seconds(0.0)).end)
    after = await steady.for_seconds(AFTERWARDS)
    record = await steady.finish()
    recovery = record.recovery_seconds(down.end, after.end, BAD, healthy / DECODES)
    return case(record, record.rate(down), healthy, SHARE, recovery)


def restarted(worker: WorkerProcess) -> WorkerProcess:
    """The same command line at the same port; ready.

    It starts with the lowest priority: a process that imports takes a core for two seconds, which in a cluster is one
    of its own machine's, and here would be one of the two that all others share.
    """
    arguments = list(worker.arguments)[5:]
    arguments += ["--grpc-port", worker.address.rsplit(":", 1)[1]]
    successor = WorkerProcess(worker.role, worker.name, *arguments)
    set_priority(successor.pid, LOWEST)
    successor.wait_for("ready")
    set_priority(successor.pid, NORMAL)
    return successor


def set_priority(pid: int, priority: int) -> None:
    """Of all threads of the process and its children; what they start inherits it. Only root may raise it again."""
    if os.geteuid() != 0:
        return
    for process in (root := psutil.Process(pid), *root.children(recursive=True)):
        for thread in process.threads():
            os.setpriority(os.PRIO_PROCESS, thread.id, priority)


async def silent(load: list[LoadWorker], healthy: float, from_start: bool) -> Case:
    """The prefill worker's way to the bad decode worker leads through a proxy; the router's does not."""
    bad = load[BAD]
    proxy = LinkProxy(int(bad.address.rsplit(":", 1)[1]))
    await proxy.start()
    load[BAD] = LoadWorker("decode", bad.address, proxy.address)
    if from_start:
        proxy.set_mode(LinkMode.STALL)
    steady = SteadyLoad(load)
    await steady.start(kv_peers=DECODES - from_start)
    await steady.for_seconds(SETTLE)
    proxy.set_mode(LinkMode.STALL)
    interval = await steady.for_seconds(MEASURE)
    record = await steady.finish()
    await proxy.stop()
    return case(record, record.rate(interval), healthy, SHARE)


def case(record: Record, rate: float, healthy: float, share: float, recovery: float | None = None) -> Case:
    for request, failure in list(record.failures.items())[:3]:
        say(f"request {request} failed: {failure}")
    return {
        "completed": record.completed,
        "failed": record.failed,
        "requests_per_second": rate,
        "rate_ratio": rate / (healthy * share),
        "recovery_seconds": recovery,
        "resubmissions": record.resubmissions,
    }


if __name__ == "__main__":
    main()
