"""The phases of the operator's benchmark: each does something to the cluster and tells what the operator did then."""

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from operator_audit import AuditLog, Record, counts, first_after
from operator_client import MERGE, BareClient, side_by_side
from operator_manifests import NAMESPACE, cluster, name_of
from operator_plane import Measured
from report import Figure, say

CLUSTERS_PATH = f"/apis/pdcluster.dev/v1alpha1/namespaces/{NAMESPACE}/pdclusters"
SCALERS_PATH = f"/apis/pdcluster.dev/v1alpha1/namespaces/{NAMESPACE}/pdrolescalers"
LOOK_SECONDS = 0.05
LONGEST = 900.0
PODS_OF_ONE = 5


@dataclass(frozen=True)
class Scene:
    """The administrator's client, the audit logs by who asks, and the operator's process."""

    client: BareClient
    log: AuditLog
    controllers: AuditLog
    kwok: AuditLog
    operator: Measured

    async def until(self, holds: Callable[[], bool], log: AuditLog, seconds: float = LONGEST) -> None:
        """Returns when `holds` is true of what was logged; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            log.read()
            while not holds():
                await asyncio.sleep(LOOK_SECONDS)
                log.read()


async def settle(scene: Scene, quiet: float = 5.0) -> None:
    """Returns when the operator has asked for nothing for so many seconds."""
    async with asyncio.timeout(LONGEST):
        await asyncio.sleep(quiet)
        while scene.log.read():
            await asyncio.sleep(quiet)


async def converge(scene: Scene, clusters: int, children: int) -> float:
    """Seconds from the first cluster's creation until all children of all clusters exist."""
    since = len(scene.log.records)
    started = time.time()
    await side_by_side(lambda number: _create(scene.client, number), range(clusters))

    def made() -> list[Record]:
        return [record for record in scene.log.records[since:] if record.made_an_object]

    await scene.until(lambda: len(made()) >= clusters * children, scene.log)
    return max(record.done for record in made()) - started


async def _create(client: BareClient, number: int) -> None:
    await client.post(CLUSTERS_PATH, cluster(name_of(number)))


async def at_rest(scene: Scene, seconds: float) -> dict[str, Figure]:
    """What the operator does while nothing happens. Lists of watched kinds are counted since it was started."""
    cpu, since = scene.operator.cpu_seconds(), len(scene.log.records)
    say("calls so far: " + str(counts(iter(scene.log.records))))
    await asyncio.sleep(seconds)
    used = scene.operator.cpu_seconds() - cpu
    scene.log.read()
    resting = scene.log.records[since:]
    lists = [record for record in scene.log.records if record.verb == "list" and record.was_served]
    watched = [record for record in lists if not record.is_event]
    others = [record for record in resting if record.verb == "get" or (record.verb == "list" and record.is_event)]
    return {
        "writes_at_rest": sum(record.is_write for record in resting),
        "reads_at_rest": len(watched) + len(others),
        "cpu_at_rest": used / seconds,
    }


async def reactions(scene: Scene, first: int, number: int) -> dict[str, Figure]:
    """One PDCluster after another, from the request that creates it to the answer that its first StatefulSet exists.

    First so many at rest, when the pods of the one before run; then as many in a row, each as soon as the one before
    has a StatefulSet.
    """
    rest = []
    for entry in range(first, first + number):
        rest.append(await _reaction(scene, entry))
        await pods_run(scene, entry, 1)
    row = [await _reaction(scene, entry) for entry in range(first + number, first + 2 * number)]
    return {
        "cr_to_statefulset_p50_seconds": statistics.median(rest),
        "cr_to_statefulset_p99_seconds": _p99(rest),
        "cr_to_statefulset_in_a_row_p50_seconds": statistics.median(row),
        "cr_to_statefulset_in_a_row_p99_seconds": _p99(row),
    }


async def _reaction(scene: Scene, entry: int) -> float:
    name, asked = name_of(entry), time.time()
    await _create(scene.client, entry)
    return await _answered(scene, asked, f"{name}-")


async def scalings(scene: Scene, number: int) -> dict[str, Figure]:
    """From a write of a scaler's replicas to the answer to the StatefulSet's."""
    times = []
    for entry in range(number):
        name, asked = f"{name_of(entry)}-decode", time.time()
        await scene.client.send("PATCH", f"{SCALERS_PATH}/{name}/scale", b'{"spec":{"replicas":3}}', MERGE)
        times.append(await _answered(scene, asked, name))
    return {"scale_write_p50_seconds": statistics.median(times), "scale_write_p99_seconds": _p99(times)}


async def _answered(scene: Scene, asked: float, name: str) -> float:
    """Seconds until the operator has written a StatefulSet whose name begins so."""

    def written(record: Record) -> bool:
        return record.is_write and record.resource == "statefulsets" and record.name.startswith(name)

    since = max(len(scene.log.records) - 1000, 0)
    found: list[float] = []

    def holds() -> bool:
        done = first_after(scene.log.records[since:], asked, written)
        found.extend([] if done is None else [done])
        return bool(found)

    await scene.until(holds, scene.log, 60.0)
    return found[0] - asked


async def pods_created(scene: Scene, first: int, number: int) -> dict[str, Figure]:
    """Seconds from the creation of so many PDClusters until the pods of all exist, and until all run."""
    await settle(scene)
    scene.controllers.read()
    since, started = len(scene.controllers.records), time.time()
    await side_by_side(lambda entry: _create(scene.client, first + entry), range(number))
    run = await pods_run(scene, first, number)
    scene.controllers.read()
    made = [record.done for record in scene.controllers.records[since:] if record.made_a_pod]
    assert len(made) >= number * PODS_OF_ONE
    return {"pods_created_seconds": sorted(made)[number * PODS_OF_ONE - 1] - started, "pods_run_seconds": run - started}


async def taken_over(scene: Scene, clusters: int) -> dict[str, Figure]:
    """A new operator process in place of the old one: until it has had a look at every cluster; nothing is written."""
    await settle(scene)
    since, started = len(scene.log.records), time.time()
    await asyncio.to_thread(scene.operator.restart)
    async with asyncio.timeout(LONGEST):
        while await scene.operator.turns_taken() < clusters:
            await asyncio.sleep(LOOK_SECONDS)
    seconds = time.time() - started
    await settle(scene)
    return {
        "take_over_seconds": seconds,
        "take_over_cpu_seconds": scene.operator.cpu_seconds(),
        "take_over_rss_bytes": scene.operator.resident_bytes(),
        "take_over_writes": sum(record.is_write for record in scene.log.records[since:]),
    }


async def pods_run(scene: Scene, first: int, number: int) -> float:
    """Waits until KWOK has brought five pods of each of so many clusters to life; returns when the last one came."""
    wanted = {name_of(first + entry) for entry in range(number)}
    runs: dict[str, float] = {}
    seen = 0

    def holds() -> bool:
        nonlocal seen
        for record in scene.kwok.records[seen:]:
            if record.resource == "pods" and record.is_write and record.name[: len(name_of(0))] in wanted:
                runs.setdefault(record.name, record.done)
        seen = len(scene.kwok.records)
        return len(runs) >= number * PODS_OF_ONE

    await scene.until(holds, scene.kwok)
    return max(runs.values())


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[98]
