"""The committed CustomResourceDefinitions are those of the typed model, structural, and cheap enough for rules."""

import pytest
import yaml
from operator_manifests import ROOT

from pdcluster_operator.crd.generate import generated
from pdcluster_operator.crd.schema import definitions

FORBIDDEN = {"$ref", "$defs", "title", "oneOf", "allOf", "nullable", "definitions", "patternProperties", "const"}
DEFINITIONS = definitions()


def schema_of(definition):
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema, path=""):
    """Every schema below, with its path; not the values of defaults and enumerations."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name], f"{path}[]")


@pytest.mark.parametrize("name", generated().keys())
def test_the_committed_file_is_up_to_date(name):
    assert (ROOT / name).read_text() == generated()[name], "run make crds"


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS.keys())
def test_the_schema_is_structural(definition):
    for path, node in nodes(schema_of(definition)):
        assert not FORBIDDEN & node.keys(), path
        if not node.get("x-kubernetes-int-or-string"):
            assert isinstance(node.get("type"), str), path
        assert not ("properties" in node and "additionalProperties" in node), path


@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS.keys())
def test_everything_that_can_grow_has_a_limit(definition):
    for path, node in nodes(schema_of(definition)["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


def test_defaults_of_groups_are_spelled_out():
    for path, node in nodes(schema_of(DEFINITIONS["pdcluster.dev_pdclusters.yaml"])):
        default = node.get("default")
        if not isinstance(default, dict):
            continue
        inner = {name for name, child in node["properties"].items() if child.get("default") not in (None, [])}
        assert inner <= default.keys(), path


def test_a_roles_engine_has_no_default():
    spec = schema_of(DEFINITIONS["pdcluster.dev_pdclusters.yaml"])["properties"]["spec"]
    engine = spec["properties"]["prefill"]["properties"]["engine"]
    assert not [path for path, node in nodes(engine) if "default" in node]
    assert spec["properties"]["engine"]["properties"]["prepareThreads"]["default"] == 5


def test_replicas_have_no_default():
    spec = schema_of(DEFINITIONS["pdcluster.dev_pdclusters.yaml"])["properties"]["spec"]
    assert "default" not in spec["properties"]["decode"]["properties"]["replicas"]
    scaler = schema_of(DEFINITIONS["pdcluster.dev_pdrolescalers.yaml"])["properties"]["spec"]
    assert "replicas" in scaler["required"]
    assert "default" not in scaler["properties"]["replicas"]


def test_the_scaler_has_a_scale_subresource():
    version = DEFINITIONS["pdcluster.dev_pdrolescalers.yaml"]["spec"]["versions"][0]
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"


def test_client_side_apply_can_hold_it():
    """kubectl apply keeps the whole object in an annotation of at most 262,144 bytes."""
    for definition in DEFINITIONS.values():
        assert len(yaml.safe_dump(definition)) < 200_000
