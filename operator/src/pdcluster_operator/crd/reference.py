"""docs/manifest.md: every field of a PDCluster as a table, made from the schema."""

import json
from collections.abc import Iterator

from pdcluster_operator.crd.schema import Schema

INTRODUCTION = """# The manifest

One `PDCluster` of `pdcluster.dev/v1alpha1`, in YAML or JSON: the same for `pdc run` and for a cluster. Unknown fields,
wrong types and broken rules are errors that name the field's path. This page is made from the typed model
(`make crds`).

The three roles `prefill`, `decode` and `mixed` have the same fields; they are shown once, as ROLE. Valid are prefill
with decode, mixed alone, or all three. A role's `engine` wins over `spec.engine`. Samples are in
[manifests/samples](../manifests/samples).
"""
ROLES = ("prefill", "decode", "mixed")


def reference(definition: Schema) -> str:
    """Markdown for the spec of a CustomResourceDefinition."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec = schema["properties"]["spec"]
    rows = [_row(path, field) for path, field in _fields(spec) if _is_shown(path)]
    table = ["| field of `spec` | type | default | meaning |", "|---|---|---|---|", *rows]
    rules = [f"* {text}" for text in dict.fromkeys(_rules(spec))]
    return "\n".join([INTRODUCTION, "## Fields", "", *table, "", "## Rules", "", *rules, ""])


def _fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field below, by path, in order: `prefill.gpu.count`."""
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, child
        yield from _fields(child["items"], f"{here}[]") if "items" in child else _fields(child, here)


def _is_shown(path: str) -> bool:
    first = path.split(".")[0]
    return first not in ROLES[1:]


def _row(path: str, field: Schema) -> str:
    default = field.get("default")
    is_plain = default is not None and not isinstance(default, dict | list)
    shown = f"`{json.dumps(default)}`" if is_plain else ""
    return f"| `{_shown_path(path)}` | {_type(field)} | {shown} | {_escape(field.get('description', ''))} |"


def _shown_path(path: str) -> str:
    return path.replace("prefill", "ROLE", 1) if path.split(".")[0] == "prefill" else path


def _type(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(f"`{value}`" for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field["type"] == "array":
        return "list"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = "" if low is None or high is None else f" {low} to {high}"
    return f"{'map' if 'additionalProperties' in field else field['type']}{bounds}"


def _rules(schema: Schema, path: str = "") -> Iterator[str]:
    for entry in schema.get("x-kubernetes-validations", []):
        place = f"{path}{entry.get('fieldPath', '')}".removeprefix(".")
        yield f"`{_shown_path(place)}` {_escape(entry['message'])}"
    for name, child in schema.get("properties", {}).items():
        if name not in ROLES[1:]:
            yield from _rules(child, _shown_path(f"{path}.{name}" if path else name))


def _escape(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
