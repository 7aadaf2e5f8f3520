"""Which fields of a child are still ours: the drift detector. Pure.

The API server notes for every field who applied it last. An edit by anybody else takes exactly the edited field out of
our entry, so that a child is as we left it if our entry still covers every path that we apply.
"""

import hashlib
import json
import zlib
from typing import Any

from pdcluster_operator.resources import Manifest

HASH_ANNOTATION = "pdcluster.dev/applied-hash"
IDENTITY = frozenset({"apiVersion", "kind"})
UNOWNED_METADATA = frozenset({"name", "namespace", "resourceVersion", "uid"})


def digest(manifest: Manifest) -> str:
    """A hash of everything a manifest says; equal manifests have equal hashes, whatever their key order."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stamped(manifest: Manifest) -> Manifest:
    """The manifest with its own hash among its annotations."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), HASH_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def owned_fields(found: Manifest, manager: str) -> bytes:
    """What the API server notes as applied by `manager`, compressed: thousands of these are kept."""
    for entry in found["metadata"].get("managedFields", []):
        if entry.get("manager") == manager and entry.get("operation") == "Apply" and not entry.get("subresource"):
            return zlib.compress(json.dumps(entry.get("fieldsV1", {}), separators=(",", ":")).encode(), 1)
    return b""


def covers(owned: bytes, manifest: Manifest) -> bool:
    """Whether fields from `owned_fields` include every field that the manifest applies."""
    if not owned:
        return False
    fields = json.loads(zlib.decompress(owned))
    body = {key: value for key, value in manifest.items() if key not in IDENTITY}
    metadata = {key: value for key, value in body.pop("metadata").items() if key not in UNOWNED_METADATA}
    return _covers_object(fields.get("f:metadata", {}), metadata) and _covers_object(fields, body)


def _covers_object(fields: dict[str, Any], value: Manifest) -> bool:
    return all(f"f:{key}" in fields and _covers_value(fields[f"f:{key}"], part) for key, part in value.items())


def _covers_value(fields: dict[str, Any], value: Any) -> bool:
    """A node without children is a leaf: a scalar, or an object or list that the schema calls atomic."""
    if not fields:
        return True
    if isinstance(value, dict):
        return _covers_object(fields, value)
    if isinstance(value, list):
        return all(_covers_item(fields, item) for item in value)
    return True


def _covers_item(fields: dict[str, Any], item: Any) -> bool:
    """An item of a keyed list, or of a set. A key that the item lacks was filled in by the schema's default."""
    if not isinstance(item, dict):
        return f"v:{json.dumps(item)}" in fields
    return any(
        name.startswith("k:") and _has_key(item, json.loads(name[2:])) and _covers_value(node, item)
        for name, node in fields.items()
    )


def _has_key(item: Manifest, key: dict[str, Any]) -> bool:
    return all(name not in item or item[name] == value for name, value in key.items())
