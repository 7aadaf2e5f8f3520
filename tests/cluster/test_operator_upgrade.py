"""A newer operator under three live clusters: it takes over, restarts no pod, and renders anew only what is new."""

from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from cluster_operator import IMAGE, OperatorProcess, turns

pytestmark = pytest.mark.anyio

EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
NEWER = "example.invalid/worker:newer"
SHAPES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "scaled": {"decode__replicas": None, "decode__scaling": EXTERNAL},
    "mixed": {"mixed": {"replicas": 1, "gpu": {"count": 0}}},
}


async def pods(admin: Client) -> set[str]:
    return {pod["metadata"]["uid"] for pod in await admin.list("v1/Pod", "pdcluster.dev/cluster")}


async def image(admin: Client, name: str) -> str:
    found = await admin.get(STATEFUL_SET, name)
    return str(found["spec"]["template"]["spec"]["containers"][0]["image"])


async def edit(admin: Client, name: str, spec: Manifest) -> None:
    """Edits a cluster and waits until it is ready after that."""
    changed = await admin.merge(CLUSTER, name, {"spec": spec})

    def done(found: Manifest | None) -> bool:
        current = (found or {})["status"]["observedGeneration"] >= changed["metadata"]["generation"]
        return current and has_condition("Ready", "True")(found)

    await admin.wait(CLUSTER, name, done, seconds=90)


async def test_no_pod_is_restarted_under_three_clusters(admin: Client, node: str, operator: OperatorProcess) -> None:
    for name, shape in SHAPES.items():
        await admin.create(cluster(**shape) | {"metadata": {"name": name}})
    for name in SHAPES:
        await admin.wait(CLUSTER, name, has_condition("Ready", "True"), seconds=90)
    await admin.merge(SCALER, "scaled-decode", {"spec": {"replicas": 2}}, "scale")
    await admin.wait(SCALER, "scaled-decode", lambda found: (found or {})["status"].get("readyReplicas") == 2)
    before = await pods(admin)

    operator.restart(PDC_WORKER_IMAGE=NEWER, PDC_RESYNC_SECONDS="0.5")
    await turns(operator, 3 * len(SHAPES))
    for name in SHAPES:
        await edit(admin, name, {"disruption": {"maxUnavailable": 2}})

    assert await pods(admin) == before
    assert {await image(admin, f"{name}-{role}") for name in SHAPES for role in ("prefill", "decode")} == {IMAGE}

    await admin.merge(SCALER, "scaled-decode", {"spec": {"replicas": 3}}, "scale")
    await admin.wait(STATEFUL_SET, "scaled-decode", replicas(3))
    grown = await admin.wait("v1/Pod", "scaled-decode-2", lambda found: found is not None)
    assert (grown or {})["spec"]["containers"][0]["image"] == IMAGE, "a pod more is a pod like the others"
    assert before <= await pods(admin)

    await edit(admin, "fixed", {"engine": {"prepareThreads": 7}})
    assert await image(admin, "fixed-decode") == NEWER
    assert await image(admin, "mixed-decode") == IMAGE
