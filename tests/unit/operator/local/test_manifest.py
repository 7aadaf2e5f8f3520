"""What only a cluster can do is refused here, with its path."""

import pytest
from operator_manifests import REMOVE, edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.errors import LocalError, SpecError
from pdcluster_operator.local.machine import Machine
from pdcluster_operator.local.manifest import for_this_machine, notes, read_manifest

MACHINE = Machine(cores=(0, 1), gpus=0, has_rdma=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "models" / "ernie45-tiny").mkdir(parents=True)
    return tmp_path


def problems(folder, changes, **settings):
    with pytest.raises(SpecError) as caught:
        for_this_machine(parse(edited(changes)), folder, MACHINE, **settings)
    return [problem.path for problem in caught.value.problems]


def test_the_path_is_relative_to_the_manifest(folder):
    found = for_this_machine(parse(edited()), folder, MACHINE)
    assert found.model_path == folder / "models" / "ernie45-tiny"
    assert not found.wants_tls


@pytest.mark.parametrize(
    ("tls", "wanted"), [({}, True), ({"mode": "MTLS"}, True), ({"mode": "Disabled"}, False), (REMOVE, False)]
)
def test_tls_only_when_the_manifest_names_it(folder, tls, wanted):
    document = edited({"spec.tls": {}})
    if tls is REMOVE:
        del document["spec"]["tls"]
    else:
        document["spec"]["tls"] = tls
    assert for_this_machine(parse(document), folder, MACHINE).wants_tls is wanted


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"spec.model.source.hostPath.path": "nowhere"}, "spec.model.source.hostPath.path"),
        ({"spec.model.source": {"pvc": {"claimName": "a"}}}, "spec.model.source.pvc"),
        ({"spec.model.source": {"huggingFace": {"repo": "a/b"}}}, "spec.model.source.huggingFace"),
        ({"spec.prefill.gpu.count": 1}, "spec.prefill.gpu.count"),
        ({"spec.tls.secretName": "a"}, "spec.tls.secretName"),
        ({"spec.tls.issuerRef": {"name": "a"}}, "spec.tls.issuerRef"),
        ({"spec.router.apiKeySecretRef": {"name": "a"}}, "spec.router.apiKeySecretRef"),
    ],
)
def test_refused(folder, changes, path):
    assert problems(folder, changes) == [path]


def test_all_are_named_at_once(folder):
    changes = {"spec.model.source.hostPath.path": "nowhere", "spec.decode.gpu.count": 1}
    assert problems(folder, changes) == ["spec.model.source.hostPath.path", "spec.decode.gpu.count"]


def test_keys_may_come_from_a_file(folder):
    cluster = parse(edited({"spec.router.apiKeySecretRef": {"name": "a"}}))
    for_this_machine(cluster, folder, MACHINE, api_key_file="/keys")


def test_notes_tell_what_is_different():
    changes = {
        "spec.transport.kv.protocol": "RDMA",
        "spec.router.replicas": 2,
        "spec.prefill.podTemplate": {"spec": {}},
        "spec.decode": {"scaling": {"mode": "External", "maxReplicas": 2}},
    }
    assert len(notes(parse(edited(changes)), MACHINE)) == 4
    assert notes(parse(edited()), MACHINE) == []


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(LocalError, match="No such file"):
        read_manifest(tmp_path / "nothing.yaml")
    with pytest.raises(LocalError, match="Is a directory"):
        read_manifest(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LocalError, match="UTF-8"):
        read_manifest(tmp_path / "binary.yaml")
