"""The operator with 1,000 PDClusters on a real API server. `make bench-operator`.

docs/operator-scale.md says what each figure is.
Two control planes, one after the other and alike: on the first a bare client applies the manifests, on the second the
operator makes them. Every time and every count is of the API server's audit log.
"""

import asyncio
import tempfile
import time
from contextlib import closing
from pathlib import Path

from operator_audit import AuditLog
from operator_client import BareClient, side_by_side
from operator_manifests import Child, children, cluster, name_of
from operator_measure import (
    CLUSTERS_PATH,
    Scene,
    at_rest,
    converge,
    pods_created,
    pods_run,
    reactions,
    scalings,
    settle,
    taken_over,
)
from operator_plane import (
    CONTROLLERS,
    KWOK,
    OPERATOR,
    WITH_PODS,
    add_nodes,
    operator,
    other_controllers,
    plane_without_pods,
)
from report import QUICK, Figure, at_most, finish, say, table

CLUSTERS = 50 if QUICK else 1000
REST_SECONDS = 20.0 if QUICK else 300.0
PROBES = 20 if QUICK else 100
MORE = 10 if QUICK else 200
"""PDClusters that make 50 or 1,000 pods: four workers and a router each."""
KINDS = 14
"""PDCluster, Pod, and twelve kinds of children."""


async def bare_seconds(folder: Path) -> tuple[float, int]:
    """How long the bare client takes for all clusters and their children; and how many children one has."""
    made = children()
    async with plane_without_pods(folder) as (_, client):
        started = time.perf_counter()
        await side_by_side(lambda number: _one_by_hand(client, number, made), range(CLUSTERS))
        return time.perf_counter() - started, len(made)


async def _one_by_hand(client: BareClient, number: int, made: list[Child]) -> None:
    name = name_of(number)
    uid = (await client.post(CLUSTERS_PATH, cluster(name)))["metadata"]["uid"]
    for child in made:
        await client.apply(*child.of(name, uid))


async def operated(folder: Path, children_of_one: int) -> dict[str, Figure]:
    """Every figure of the operator."""
    figures: dict[str, Figure] = {}
    async with plane_without_pods(folder) as (plane, client):
        with (
            operator(plane) as process,
            closing(AuditLog(folder / "audit.log", OPERATOR)) as log,
            closing(AuditLog(folder / "audit.log", CONTROLLERS)) as controllers,
            closing(AuditLog(folder / "audit.log", KWOK)) as kwok,
        ):
            scene = Scene(client, log, controllers, kwok, process)
            await settle(scene)
            baseline = process.resident_bytes()
            first = len(log.records)
            figures["converge_seconds"] = await converge(scene, CLUSTERS, children_of_one)
            await settle(scene)
            figures["api_calls_per_cluster_before_pods"] = (len(log.records) - first) / CLUSTERS
            say(f"converged in {figures['converge_seconds']:.1f} s, cpu {process.cpu_seconds():.1f} s")
            await add_nodes(client)
            with other_controllers(plane, [WITH_PODS]):
                await pods_run(scene, 0, CLUSTERS)
                await settle(scene, quiet=10.0)
                figures["api_calls_per_cluster"] = (len(log.records) - first) / CLUSTERS
                figures |= await at_rest(scene, REST_SECONDS)
                figures["rss_over_baseline_bytes"] = process.resident_bytes() - baseline
                figures["rss_baseline_bytes"] = baseline
                figures |= await reactions(scene, CLUSTERS, PROBES)
                figures |= await scalings(scene, PROBES)
                figures |= await pods_created(scene, CLUSTERS + 2 * PROBES, MORE)
                figures |= await taken_over(scene, CLUSTERS + 2 * PROBES + MORE)
    return figures


async def measure() -> None:
    with tempfile.TemporaryDirectory(prefix="pdc-bench-") as folder:
        bare, number = await bare_seconds(Path(folder) / "bare")
        say(f"bare client: {CLUSTERS} clusters of {number} children in {bare:.1f} s")
        figures = await operated(Path(folder) / "operator", number)
    converged = figures["converge_seconds"]
    assert isinstance(converged, float)
    figures = {
        "clusters": CLUSTERS,
        "children_per_cluster": number,
        "converge_ratio": converged / bare,
        "bare_seconds": bare,
        **figures,
    }
    table(["figure", "measured"], [[name, value] for name, value in figures.items()])
    finish(
        "operator",
        figures,
        [
            at_most("converge_ratio", 2),
            at_most("cr_to_statefulset_p99_seconds", 1),
            at_most("api_calls_per_cluster", number + 4),
            at_most("writes_at_rest", 0),
            at_most("reads_at_rest", KINDS),
            at_most("rss_over_baseline_bytes", 150e6),
            at_most("scale_write_p99_seconds", 1),
            at_most("pods_created_seconds", 35.5),
            at_most("cpu_at_rest", 0.02),
        ],
    )


if __name__ == "__main__":
    asyncio.run(measure())
