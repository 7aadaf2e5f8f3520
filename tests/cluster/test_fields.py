"""Every field of a PDCluster's spec, changed: its child follows, or the API server refuses the change."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator

import foreign_kinds
import pytest
from cel_table import edited
from cluster_client import ApiError, Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_fixtures import gpu_node, namespace
from cluster_identity import chart_identity
from cluster_operator import operator_process
from field_rows import BASE, RDMA, STATEFUL_SET, Edit, Row, rows
from foreign_kinds import CERTIFICATES, POD_MONITORS

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200), pytest.mark.xdist_group("fields")]

Bases = dict[tuple[str, str], str]
"""By kind and name: what a child says while the spec is the base's."""


def spec_of(name: str, edit: Edit) -> Manifest:
    base = BASE if name == "demo" else RDMA
    return {**edited(copy.deepcopy({**base, **edit})), "metadata": {"name": name}}


def child_of(row: Row) -> tuple[str, str]:
    return row.kind, f"{row.name}-{row.group}".removesuffix("-")


def told(found: Manifest | None) -> str:
    """All that a child says, as JSON; nothing when it is not there."""
    if found is None:
        return ""
    marks = {key: found["metadata"].get(key) for key in ("labels", "annotations")}
    return json.dumps({**{key: value for key, value in found.items() if key not in ("metadata", "status")}, **marks})


@pytest.fixture(scope="module")
async def bench(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Client, Bases]]:
    """A cluster, one with RDMA, and what all their children say at first."""
    folder = tmp_path_factory.mktemp("operator")
    async with namespace(control_plane) as admin, gpu_node(admin):
        try:
            for kind in (CERTIFICATES, POD_MONITORS):
                await foreign_kinds.install(admin, kind)
            with operator_process(folder, chart_identity(control_plane, admin.namespace, folder), admin.namespace):
                for name in ("demo", "fast"):
                    await admin.create(spec_of(name, {}))
                    await admin.wait(CLUSTER, name, has_condition("Ready", "True"), seconds=60)
                children = {child_of(row) for row in rows() if not row.is_refused}
                yield admin, {child: told(await admin.find(*child)) for child in children}
        finally:
            for kind in (CERTIFICATES, POD_MONITORS):
                await foreign_kinds.remove(admin, kind)


async def put(admin: Client, name: str, edit: Edit) -> int:
    """The spec is the base with this edit; the generation that it has then."""
    async with asyncio.timeout(20):
        while True:
            found = await admin.get(CLUSTER, name)
            try:
                changed = await admin.replace({**found, "spec": spec_of(name, edit)["spec"]})
            except ApiError as error:
                if error.reason != "Conflict":  # the operator has written the status in between
                    raise
            else:
                return int(changed["metadata"]["generation"])


async def settled(admin: Client, name: str, generation: int) -> None:
    """Every role has the pods that it should have, by what this generation says."""

    def holds(found: Manifest | None) -> bool:
        status = (found or {})["status"]
        numbers = [(entry["effective"], entry["replicas"]) for entry in status["roles"]]
        return status["observedGeneration"] >= generation and all(wanted == there for wanted, there in numbers)

    await admin.wait(CLUSTER, name, holds, seconds=30)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.field)
async def test_a_change_of_a_field(bench: tuple[Client, Bases], row: Row) -> None:
    admin, bases = bench
    if row.is_refused:
        with pytest.raises(ApiError, match="Invalid") as answer:
            await put(admin, row.name, row.edit)
        assert row.text in answer.value.message
        assert row.field in answer.value.message
        return
    child = child_of(row)
    before = bases[child]
    if row.first:
        await settled(admin, row.name, await put(admin, row.name, {}))
        await settled(admin, row.name, await put(admin, row.name, row.first))
        before = told(await admin.find(*child))
    assert (row.text in before) is row.is_gone

    await put(admin, row.name, row.edit)

    await admin.wait(*child, lambda found: (row.text in told(found)) is not row.is_gone, seconds=20)


async def test_a_paused_cluster_changes_when_it_goes_on(bench: tuple[Client, Bases]) -> None:
    admin, _ = bench
    await settled(admin, "demo", await put(admin, "demo", {}))
    before = told(await admin.get(STATEFUL_SET, "demo-decode"))
    held = {"paused": True, "decode.replicas": 3}

    generation = await put(admin, "demo", held)

    def is_seen(found: Manifest | None) -> bool:
        return bool(found and found["status"]["observedGeneration"] >= generation)

    await admin.wait(CLUSTER, "demo", is_seen)
    assert told(await admin.get(STATEFUL_SET, "demo-decode")) == before
    await settled(admin, "demo", await put(admin, "demo", {**held, "paused": False}))
    assert (await admin.get(STATEFUL_SET, "demo-decode"))["spec"]["replicas"] == 3
