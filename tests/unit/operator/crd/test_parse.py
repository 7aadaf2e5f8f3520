"""Every wrong field is named by its path."""

import json

import pytest
import yaml
from operator_manifests import REMOVE, SMALLEST, edited, sample_files

from pdcluster_operator.crd.parse import parse, parse_scaler, parse_text
from pdcluster_operator.errors import SpecError


def paths_of(document: dict) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(document)
    return [problem.path for problem in caught.value.problems]


def test_the_smallest_manifest_gets_all_defaults():
    spec = parse(SMALLEST).spec
    engine = spec.engine_of(spec.prefill)
    assert (engine.prepare_threads, engine.block_size, engine.prefix_caching, engine.dtype) == (5, 64, True, "auto")
    assert engine.kv_blocks is None
    assert spec.mixed is None
    assert spec.tls.mode == "MTLS"
    assert "tls" not in spec.model_fields_set


def test_yaml_and_json_are_the_same():
    assert parse_text(yaml.safe_dump(SMALLEST)) == parse_text(json.dumps(SMALLEST, indent=1)) == parse(SMALLEST)


@pytest.mark.parametrize("path", sample_files(), ids=lambda path: path.stem)
def test_samples_are_valid(path):
    assert parse_text(path.read_text()).metadata.name


def test_a_role_wins_over_the_common_engine():
    changes = {"spec.engine": {"blockSize": 16, "maxBatchTokens": 64}, "spec.decode.engine": {"maxBatchTokens": 32}}
    spec = parse(edited(changes)).spec
    assert spec.engine_of(spec.prefill).max_batch_tokens == 64
    assert spec.engine_of(spec.decode).max_batch_tokens == 32
    assert spec.engine_of(spec.decode).block_size == 16


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("apiVersion", "pdcluster.dev/v2"),
        ("kind", "Pod"),
        ("metadata.name", "Demo"),
        ("metadata.name", "a" * 41),
        ("metadata.name", "demo-"),
        ("metadata.name", "1demo"),
        ("spec.model.name", ""),
        ("spec.model.name", 3),
        ("spec.model.source.hostPath.path", ""),
        ("spec.prefill.replicas", -1),
        ("spec.prefill.replicas", 1001),
        ("spec.prefill.replicas", "2"),
        ("spec.prefill.replicas", 2.5),
        ("spec.prefill.replicas", True),
        ("spec.prefill.gpu.count", -1),
        ("spec.prefill.gpu.resourceName", "Not A Name"),
        ("spec.engine.prepareThreads", 0),
        ("spec.engine.blockSize", 0),
        ("spec.engine.dtype", "int4"),
        ("spec.engine.runner", "paddle"),
        ("spec.engine.memoryUtilization", 1.5),
        ("spec.engine.memoryUtilization", "0.5"),
        ("spec.engine.prefixCaching", "yes"),
        ("spec.decode.engine.kvBlocks", 0),
        ("spec.decode.resources.limits.cpu", "two"),
        ("spec.decode.resources.limits.cpu", 1.5),
        ("spec.transport.kv.protocol", "UDP"),
        ("spec.tls.mode", "TLS"),
        ("spec.router.maxQueue", 0),
        ("spec.scalingPolicy.ratio.min", 0.5),
        ("spec.rollout.strategy", "BlueGreen"),
        ("spec.router.enabled", False),
        ("spec.prefill.engine.blocksize", 16),
        ("spec.decod", {}),
        ("spec.transport.kv.leaseSeconds", 30),
        ("status2", {}),
    ],
)
def test_a_bad_value_is_named(path, value):
    assert path in paths_of(edited({path: value}))


def test_all_bad_fields_are_named_at_once():
    changes = {"metadata.name": "Demo", "spec.prefill.replicas": -1, "spec.decode.engine": {"dtype": "x", "y": 1}}
    found = paths_of(edited(changes))
    assert sorted(found) == [
        "metadata.name",
        "spec.decode.engine.dtype",
        "spec.decode.engine.y",
        "spec.prefill.replicas",
    ]


def test_the_index_in_a_list_is_part_of_the_path():
    assert paths_of(edited({"spec.prefill.env": [{"name": "A"}, {"name": "2B"}]})) == ["spec.prefill.env[1].name"]


def test_a_near_name_is_suggested():
    with pytest.raises(SpecError, match=r"spec.prefill.engine.blocksize: unknown field \(did you mean blockSize\?\)"):
        parse(edited({"spec.prefill.engine.blocksize": 16}))


def test_missing_fields_are_named():
    assert paths_of({}) == ["apiVersion", "kind", "metadata", "spec"]
    assert paths_of(edited({"spec.model": REMOVE})) == ["spec.model"]


def test_null_is_absence_where_a_field_is_known():
    assert (
        parse(edited({"spec.router": None, "spec.mixed": None, "spec.prefill.replicas": None})).spec.router.replicas
        == 1
    )
    assert paths_of(edited({"spec.model": None})) == ["spec.model"]
    assert paths_of(edited({"spec.unknown": None})) == ["spec.unknown"]
    assert paths_of(edited({"spec.prefill.env": [None]})) == ["spec.prefill.env[0]"]


def test_quantities_may_be_integers():
    role = parse(edited({"spec.decode.resources": {"limits": {"cpu": 2, "memory": "16Gi"}}})).spec.decode
    assert role.resources.limits == {"cpu": "2", "memory": "16Gi"}


def test_what_the_api_server_adds_is_accepted():
    document = edited({"status": {"conditions": []}, "metadata.annotations": {"a": "b"}, "metadata.uid": "1"})
    assert parse(document).metadata.uid == "1"


def test_a_scaler_has_replicas_and_no_default():
    document = {
        "apiVersion": "pdcluster.dev/v1alpha1",
        "kind": "PDRoleScaler",
        "metadata": {"name": "demo-decode"},
        "spec": {"cluster": "demo", "role": "decode", "replicas": 3},
    }
    assert parse_scaler(document).spec.replicas == 3
    del document["spec"]["replicas"]
    with pytest.raises(SpecError, match=r"spec\.replicas: is required"):
        parse_scaler(document)
