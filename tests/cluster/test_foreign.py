"""Whose an object is: foreign ones are refused, the operator's own orphans come home, others only when handed over."""

import pytest
from cluster_client import Client, Manifest
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_operator import OperatorProcess

pytestmark = pytest.mark.anyio

SERVICE, SECRET = "v1/Service", "v1/Secret"


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


async def test_secrets_that_lost_their_owner_come_home_with_what_they_hold(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
    names = ["demo-ca", "demo-decode-tls"]
    before = {name: (await admin.get(SECRET, name))["data"] for name in names}

    for name in names:
        await admin.merge(SECRET, name, {"metadata": {"ownerReferences": None}})

    for name in names:
        found = await admin.wait(SECRET, name, owned)
        assert found is not None
        assert found["data"] == before[name]
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"))


async def test_an_authority_of_unknown_origin_is_refused_until_it_is_handed_over(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster())
    await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
    bare = {"ownerReferences": None, "annotations": {"pdcluster.dev/made-for": None}}
    await admin.merge(SECRET, "demo-ca", {"metadata": bare})
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "NameConflict"))

    await admin.merge(SECRET, "demo-ca", {"metadata": {"annotations": {"pdcluster.dev/adopt": "demo"}}})

    await admin.wait(SECRET, "demo-ca", owned)
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"))


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
