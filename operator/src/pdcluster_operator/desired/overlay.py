"""A user's podTemplate laid over the generated one. Pure.

Maps merge, values replace, and lists merge item by item where `MERGE_KEYS` names their key, as in Kubernetes itself;
any other list replaces. What makes a pod a member of its cluster is not for the overlay to change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pdcluster_operator.crd.merge_keys import MERGE_KEYS
from pdcluster_operator.desired.labels import IDENTITY

Manifest = dict[str, Any]

PROTECTED_VOLUMES = frozenset({"tls"})
PROTECTED_FIELDS = frozenset({"command", "args", "ports"})
"""Of the main container: what the rest of the cluster relies on."""

MAIN = "main"


def overlaid(template: Manifest, overlay: Manifest) -> Manifest:
    """The template with the overlay's metadata and spec merged into it."""
    metadata, spec = overlay.get("metadata") or {}, overlay.get("spec") or {}
    allowed = {key: _without(metadata.get(key) or {}, IDENTITY) for key in ("labels", "annotations") if key in metadata}
    return {
        "metadata": _merged(template["metadata"], allowed),
        "spec": _merged(template["spec"], _unprotected(spec)),
    }


def _unprotected(spec: Manifest) -> Manifest:
    cleaned = dict(spec)
    if "containers" in spec:
        cleaned["containers"] = [_unprotected_container(entry) for entry in spec["containers"]]
    if "volumes" in spec:
        cleaned["volumes"] = [entry for entry in spec["volumes"] if entry.get("name") not in PROTECTED_VOLUMES]
    return cleaned


def _unprotected_container(container: Manifest) -> Manifest:
    if container.get("name") != MAIN:
        return container
    cleaned = _without(container, PROTECTED_FIELDS)
    if "volumeMounts" in cleaned:
        cleaned["volumeMounts"] = [m for m in cleaned["volumeMounts"] if m.get("name") not in PROTECTED_VOLUMES]
    return cleaned


def _without(values: Mapping[str, Any], names: frozenset[str]) -> Manifest:
    return {key: value for key, value in values.items() if key not in names}


def _merged(base: Any, over: Any, field: str = "") -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merged(base.get(key), value, key) for key, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list) and field in MERGE_KEYS:
        return _merged_list(base, over, MERGE_KEYS[field])
    return over


def _merged_list(base: Sequence[Any], over: Sequence[Any], key: str) -> list[Any]:
    """Items in the order of `base`, then the new ones."""
    replacements = {item.get(key): item for item in over}
    kept = [_merged(item, replacements.pop(item.get(key), {})) for item in base]
    return [*kept, *replacements.values()]
