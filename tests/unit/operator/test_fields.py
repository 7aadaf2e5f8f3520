"""Field coverage: what the API server notes as ours against what we apply; entries are as a 1.36 server writes them."""

import json
from typing import Any

import pytest

from pdcluster_operator.fields import covers, digest, owned_fields, stamped

APPLIED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "StatefulSet",
    "metadata": {"name": "s", "namespace": "n", "labels": {"pdcluster.dev/cluster": "c"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "spec": {
                "containers": [
                    {
                        "name": "c",
                        "args": ["x"],
                        "ports": [{"containerPort": 80, "name": "p"}],
                        "resources": {"limits": {"cpu": "1"}},
                    }
                ]
            }
        },
    },
}
PORTS = {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}, "f:name": {}}}
CONTAINER = {
    ".": {},
    "f:name": {},
    "f:args": {},
    "f:ports": PORTS,
    "f:resources": {"f:limits": {"f:cpu": {}}},
}
OWNED: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:pdcluster.dev/cluster": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:selector": {},
        "f:template": {"f:spec": {"f:containers": {'k:{"name":"c"}': CONTAINER}}},
    },
}


def entry(fields: dict[str, Any], **changes: str) -> dict[str, Any]:
    return {"manager": "me", "operation": "Apply", "fieldsV1": fields, **changes}


def owned(fields: dict[str, Any]) -> bytes:
    return owned_fields({"metadata": {"managedFields": [entry({}, manager="other"), entry(fields)]}}, "me")


def without(path: list[str]) -> dict[str, Any]:
    """The entry after somebody took a field: parents that are empty then go too, as on the server."""
    changed: dict[str, Any] = json.loads(json.dumps(OWNED))
    nodes = [changed]
    for step in path[:-1]:
        nodes.append(nodes[-1][step])
    for node, step in zip(reversed(nodes), reversed(path), strict=True):
        if node is nodes[-1] or not node[step]:
            del node[step]
    return changed


def test_all_that_is_applied_is_ours() -> None:
    assert covers(owned(OWNED), APPLIED)


@pytest.mark.parametrize(
    "path",
    [
        ["f:spec", "f:replicas"],
        ["f:spec", "f:selector"],
        ["f:metadata", "f:labels"],
        ["f:metadata", "f:labels", "f:pdcluster.dev/cluster"],
        ["f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"c"}'],
        ["f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"c"}', "f:args"],
        ["f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"c"}', "f:resources", "f:limits"],
    ],
)
def test_a_field_that_somebody_else_took_is_not(path: list[str]) -> None:
    assert not covers(owned(without(path)), APPLIED)


def test_entries_of_others_and_of_other_kinds_of_writes_do_not_count() -> None:
    for changes in ({"manager": "other"}, {"operation": "Update"}, {"subresource": "status"}):
        found = {"metadata": {"managedFields": [entry(OWNED, **changes)]}}
        assert not covers(owned_fields(found, "me"), APPLIED)
    assert not covers(owned_fields({"metadata": {}}, "me"), APPLIED)


def test_items_of_a_set_are_found_by_value() -> None:
    manifest = {"kind": "X", "metadata": {"name": "x", "finalizers": ["a", "b"]}}
    assert covers(owned({"f:metadata": {"f:finalizers": {'v:"a"': {}, 'v:"b"': {}}}}), manifest)
    assert not covers(owned({"f:metadata": {"f:finalizers": {'v:"a"': {}}}}), manifest)


def test_the_stamp_is_the_hash_of_the_manifest_without_it() -> None:
    marked = stamped(APPLIED)
    assert marked["metadata"]["annotations"] == {"pdcluster.dev/applied-hash": digest(APPLIED)}
    assert "annotations" not in APPLIED["metadata"]
    assert digest(json.loads(json.dumps(APPLIED, sort_keys=True))) == digest(APPLIED)
