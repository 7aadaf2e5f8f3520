"""Whose an object is: foreign ones are refused, the operator's own orphans come home, others only when handed over."""

import pytest
from cluster_client import Client, Manifest
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_operator import OperatorProcess

pytestmark = pytest.mark.anyio

SERVICE = "v1/Service"


def owned(found: Manifest | None) -> bool:
    return bool(found and found["metadata"].get("ownerReferences"))


async def test_children_that_lost_their_owner_come_home(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
    names = [(SERVICE, "demo-decode"), (STATEFUL_SET, "demo-prefill")]
    before = {name: (await admin.get(kind, name))["metadata"]["uid"] for kind, name in names}

    for kind, name in names:
        await admin.merge(kind, name, {"metadata": {"ownerReferences": None}})

    for kind, name in names:
        found = await admin.wait(kind, name, owned)
        assert found is not None
        assert found["metadata"]["uid"] == before[name]


async def test_a_labelled_object_of_somebody_else_is_refused_until_it_is_handed_over(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    metadata = {"name": "demo-router", "labels": {"pdcluster.dev/cluster": "demo"}}
    spec = {"ports": [{"name": "old", "port": 9}]}
    made = await admin.create({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "NameConflict"), seconds=60)
    left = await admin.get(SERVICE, "demo-router")
    assert left["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]

    await admin.merge(SERVICE, "demo-router", {"metadata": {"annotations": {"pdcluster.dev/adopt": "demo"}}})

    await admin.wait(SERVICE, "demo-router", owned)
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"), seconds=60)
