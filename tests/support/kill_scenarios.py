"""What happens to a PDCluster while its operator is killed: scenarios, each with what it begins from.

Waits are long: they end only a run in which nothing will ever come, on however busy a machine.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from cluster_client import Client, Manifest
from cluster_expect import CLUSTER, SCALER, STATEFUL_SET, cluster, has_condition, replicas
from fake_admin import FakeAdmin, admin_of

from pdcluster_operator.desired.labels import COUNTED
from pdcluster_operator.fields import HASH_ANNOTATION
from pdcluster_operator.resources import CHILDREN

SECONDS = 300.0
EXTERNAL = {"mode": "External", "minReplicas": 1, "maxReplicas": 4}
SCALED = {"decode__replicas": None, "decode__scaling": EXTERNAL, "prefill__replicas": 1}
SINGLE = {"decode__replicas": 1, "prefill__replicas": 1}
OWN = "pdcluster.dev/cluster=demo"
WORKERS = f"{OWN},pdcluster.dev/role in (prefill,decode)"
SECRET = "v1/Secret"
POD = "v1/Pod"
KINDS = [f"{resource.api_version}/{resource.kind}" for resource in CHILDREN]
GIVEN = {"clusterIP", "clusterIPs"}
"""What the API server puts into a spec, another value each time."""

Happening = Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def life(admin: Client) -> AsyncIterator[Happening]:
    """Creation, scaling up, another revision and a policy less, scaling down."""

    async def happen() -> None:
        await admin.create(cluster(**SCALED))
        await ready(admin)
        await scale(admin, 2)
        await admin.wait(STATEFUL_SET, "demo-decode", replicas(2), SECONDS)
        await change(admin, {"engine": {"prepareThreads": 7}, "disruption": {"pdb": False}})
        await scale(admin, 1)
        await gone(admin, POD, "demo-decode-1")

    yield happen


@contextlib.asynccontextmanager
async def made_again(admin: Client) -> AsyncIterator[Happening]:
    """Deleted, and made again under the same name once everything is gone."""
    await stand(admin)

    async def happen() -> None:
        await admin.delete(CLUSTER, "demo")
        for kind in (POD, *KINDS):
            for child in await admin.list(kind, OWN):
                await gone(admin, kind, child["metadata"]["name"])
        await stand(admin)

    yield happen


@contextlib.asynccontextmanager
async def made_again_at_once(admin: Client) -> AsyncIterator[Happening]:
    """Deleted and made again while Kubernetes still collects what belonged to the old one: none of it is adopted."""
    await stand(admin)

    async def happen() -> None:
        old = {child["metadata"]["uid"] for child in await children(admin)}
        await admin.delete(CLUSTER, "demo")
        await stand(admin)
        assert not [child for child in await children(admin) if child["metadata"]["uid"] in old]

    yield happen


@contextlib.asynccontextmanager
async def certificates(admin: Client) -> AsyncIterator[Happening]:
    """TLS switched off and on again: the certificates go, and others come."""
    await stand(admin)

    async def happen() -> None:
        await change(admin, {"tls": {"mode": "Disabled"}})
        for secret in await admin.list(SECRET, OWN):
            await gone(admin, SECRET, secret["metadata"]["name"])
        await change(admin, {"tls": {"mode": "MTLS"}})

    yield happen


@contextlib.asynccontextmanager
async def busy_workers(admin: Client) -> AsyncIterator[Happening]:
    """A scale-in whose workers are busy: begun, half taken back, begun again, and done as they become empty."""
    await admin.create(cluster(**SCALED, tls={"mode": "Disabled"}, drain={"timeoutSeconds": 600}))
    await ready(admin)
    await scale(admin, 3)
    await admin.wait(SCALER, "demo-decode", lambda found: _has_exactly(found, 3), SECONDS)
    async with contextlib.AsyncExitStack() as stack:
        workers: dict[int, FakeAdmin] = {}
        for ordinal in (1, 2):
            pod = await admin.get(POD, f"demo-decode-{ordinal}")
            workers[ordinal] = await stack.enter_async_context(admin_of(pod["status"]["podIP"]))

        async def happen() -> None:
            await scale(admin, 1)
            for name in ("demo-decode-1", "demo-decode-2"):
                await admin.wait(POD, name, counted(False), SECONDS)
            await scale(admin, 2)
            await admin.wait(POD, "demo-decode-1", counted(True), SECONDS)
            workers[2].empty.set()
            await gone(admin, POD, "demo-decode-2")
            await scale(admin, 1)
            await admin.wait(POD, "demo-decode-1", counted(False), SECONDS)
            workers[1].empty.set()
            await gone(admin, POD, "demo-decode-1")

        yield happen


SCENARIOS: Mapping[str, Callable[[Client], contextlib.AbstractAsyncContextManager[Happening]]] = {
    "life": life,
    "again": made_again,
    "at-once": made_again_at_once,
    "tls": certificates,
    "drain": busy_workers,
}


async def stand(admin: Client) -> None:
    await admin.create(cluster(**SINGLE))
    await ready(admin)


async def ready(admin: Client, generation: int = 1) -> None:
    def holds(found: Manifest | None) -> bool:
        seen = (found or {}).get("status", {}).get("observedGeneration", 0)
        return bool(seen >= generation) and has_condition("Ready", "True")(found)

    await admin.wait(CLUSTER, "demo", holds, SECONDS)


async def settled(admin: Client) -> None:
    """Nothing is left to do, and the status says so."""
    await ready(admin, (await admin.get(CLUSTER, "demo"))["metadata"]["generation"])
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"), SECONDS)
    for scaler in await admin.list(SCALER):
        number = scaler["spec"]["replicas"]
        await admin.wait(
            SCALER, scaler["metadata"]["name"], lambda found, number=number: _has_exactly(found, number), SECONDS
        )


def _has_exactly(found: Manifest | None, number: int) -> bool:
    status = (found or {}).get("status", {})
    return bool(status.get("replicas") == status.get("readyReplicas") == number)


async def change(admin: Client, spec: Manifest) -> None:
    changed = await admin.merge(CLUSTER, "demo", {"spec": spec})
    await ready(admin, changed["metadata"]["generation"])


async def scale(admin: Client, number: int) -> None:
    await admin.merge(SCALER, "demo-decode", {"spec": {"replicas": number}}, "scale")


async def gone(admin: Client, kind: str, name: str) -> None:
    await admin.wait(kind, name, lambda found: found is None, SECONDS)


def counted(wanted: bool) -> Callable[[Manifest | None], bool]:
    return lambda found: found is not None and (COUNTED in found["metadata"]["labels"]) is wanted


async def children(admin: Client) -> list[Manifest]:
    """All that the operator made, whichever PDCluster of the name it was for; each with its kind."""
    found = [{**child, "kind": kind} for kind in KINDS for child in await admin.list(kind, OWN)]
    return [child for child in found if owner(child).get("kind") in {"PDCluster", None}]


def owner(child: Manifest) -> Manifest:
    """Its controller, if it has one. Kubernetes' own revisions of a StatefulSet belong to that."""
    owners = [entry for entry in child["metadata"].get("ownerReferences", []) if entry.get("controller")]
    return owners[0] if owners else {}


async def footprint(admin: Client) -> dict[str, str]:
    """Each child as text, by kind and name, and each worker: without what differs from one run to another."""
    cluster_uid = (await admin.get(CLUSTER, "demo"))["metadata"]["uid"]
    found = await children(admin)
    names = {child["metadata"]["uid"]: f"{child['kind']} {child['metadata']['name']}" for child in found}
    made = {names[child["metadata"]["uid"]]: _text(admin, cluster_uid, child) for child in found}
    for pod in await admin.list(POD, WORKERS):
        marks = sorted(pod["metadata"]["labels"].items())
        by = names.get(owner(pod).get("uid", ""), "nobody of this cluster")
        marked = [mark for mark in marks if mark[0].startswith("pdcluster.dev/")]
        made[f"Pod {pod['metadata']['name']}"] = f"{by} {marked}"
    return made


def _text(admin: Client, cluster_uid: str, child: Manifest) -> str:
    metadata = child["metadata"]
    content = {key: value for key, value in child.items() if key not in {"metadata", "status", "kind", "apiVersion"}}
    if child["kind"] == SECRET:
        content["data"] = sorted(content.get("data") or {})
    if "spec" in content:
        content["spec"] = {key: value for key, value in content["spec"].items() if key not in GIVEN}
    content["labels"] = metadata["labels"]
    content["owner"] = owner(child).get("uid")
    content["hashed"] = HASH_ANNOTATION in metadata.get("annotations", {})
    return json.dumps(content, sort_keys=True).replace(admin.namespace, "NAMESPACE").replace(cluster_uid, "OWNER")
