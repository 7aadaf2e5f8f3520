"""CustomResourceDefinitions from the typed model: structural schemas, defaults at every level, rules as CEL.

`manifests/crd/` holds what this makes; a test keeps them equal.
"""

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from pdcluster_operator.crd.base import Rule, SpecModel
from pdcluster_operator.crd.cluster import GROUP, VERSION, ClusterSpec
from pdcluster_operator.crd.scaler import ScalerSpec
from pdcluster_operator.crd.status_schema import CLUSTER_COLUMNS, CLUSTER_STATUS, SCALER_COLUMNS, SCALER_STATUS
from pdcluster_operator.crd.values import CLUSTER_NAME

Schema = dict[str, Any]

DROPPED = frozenset({"title", "propertyNames", "discriminator", "$defs"})
"""JSON Schema that a structural schema must not have, or that says nothing there."""
VERBATIM = frozenset({"default", "enum", "required", "x-kubernetes-validations"})
"""What holds values or names rather than schemas."""
SCALE: Schema = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}
NAME_RULE: Schema = {
    "rule": f"self.metadata.name.matches('{CLUSTER_NAME}')",
    "message": "metadata.name must be a small letter, then up to 39 small letters, digits or hyphens",
}


def definitions() -> dict[str, Schema]:
    """Both definitions, by file name."""
    cluster = _root(ClusterSpec, CLUSTER_STATUS, "A large language model, served by prefill, decode and router pods.")
    cluster["x-kubernetes-validations"] = [NAME_RULE]
    scaler = _root(ScalerSpec, SCALER_STATUS, "The number of pods of one role, for an autoscaler to set.")
    return {
        f"{GROUP}_pdclusters.yaml": _definition("PDCluster", "pdc", cluster, CLUSTER_COLUMNS, {"status": {}}),
        f"{GROUP}_pdrolescalers.yaml": _definition(
            "PDRoleScaler", "pdrs", scaler, SCALER_COLUMNS, {"status": {}, "scale": SCALE}
        ),
    }


def schema_of(model: type[SpecModel]) -> Schema:
    """The structural schema of a model."""
    whole = model.model_json_schema(by_alias=True, schema_generator=_WithRules)
    found: Schema = _structural(whole, whole.get("$defs", {}))
    return found


class _WithRules(GenerateJsonSchema):
    """Puts each model's rules beside its fields."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found, model = super().model_schema(schema), schema["cls"]
        if issubclass(model, SpecModel) and model.rules:
            found["x-kubernetes-validations"] = [_validation(entry) for entry in model.rules]
        return found

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Defaults of groups in full: rules are checked on what defaulting made, and an empty default stays empty."""
        found, default = super().default_schema(schema), schema.get("default")
        if isinstance(default, BaseModel):
            found["default"] = json.loads(default.model_dump_json(by_alias=True, exclude_none=True))
        return found


def _validation(entry: Rule) -> Schema:
    found: Schema = {"rule": entry.cel, "message": entry.message}
    return {**found, "fieldPath": f".{entry.field}"} if entry.field else found


def _structural(node: Any, shared: Schema) -> Any:
    """The node with references resolved, and with optional written as absence rather than as null."""
    if isinstance(node, list):
        return [_structural(entry, shared) for entry in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = shared[node["$ref"].rpartition("/")[2]]
        return _structural({**target, **{key: value for key, value in node.items() if key != "$ref"}}, shared)
    choices = [entry for entry in node.get("anyOf", []) if entry.get("type") != "null"]
    if len(choices) == 1:
        rest = {key: value for key, value in node.items() if key != "anyOf"}
        return _structural({**choices[0], **rest}, shared)
    return {key: _part(key, value, shared) for key, value in node.items() if _is_kept(key, value)}


def _part(key: str, value: Any, shared: Schema) -> Any:
    if key == "properties":
        return {name: _structural(entry, shared) for name, entry in value.items()}
    return value if key in VERBATIM else _structural(value, shared)


def _is_kept(key: str, value: Any) -> bool:
    if key in DROPPED or (key == "default" and value in (None, [], {})):
        return False
    return not (key == "additionalProperties" and isinstance(value, bool))


def _root(spec: type[SpecModel], status: Schema, description: str) -> Schema:
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": schema_of(spec),
        "status": status,
    }
    return {"type": "object", "description": description, "required": ["spec"], "properties": properties}


def _definition(kind: str, short: str, schema: Schema, columns: list[Schema], subresources: Schema) -> Schema:
    plural = f"{kind.lower()}s"
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": subresources,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {**names, "shortNames": [short], "categories": ["all"]},
            "versions": [version],
        },
    }
