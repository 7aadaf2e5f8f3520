"""The rules between fields: each once accepted and once refused."""

import pytest
from operator_manifests import REMOVE, edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.errors import SpecError

MIXED = {"replicas": 1, "gpu": {"count": 0}}
ACCEPTED = {
    "pair": {},
    "mixed alone": {"spec.prefill": REMOVE, "spec.decode": REMOVE, "spec.mixed": MIXED},
    "all three": {"spec.mixed": MIXED},
    "equal block sizes by the common engine": {"spec.engine.blockSize": 16, "spec.decode.engine.blockSize": 16},
    "mixed pairs with nobody": {"spec.mixed": {**MIXED, "engine": {"blockSize": 16}}},
    "zero together": {"spec.prefill.replicas": 0, "spec.decode.replicas": 0},
    "zero beside a scaled role": {
        "spec.prefill.replicas": 0,
        "spec.decode": {"gpu": {"count": 0}, "scaling": {"mode": "External", "maxReplicas": 2}},
    },
    "one GPU": {"spec.prefill.gpu.count": 1},
    "managed": {"spec.decode": {"scaling": {"mode": "Managed", "maxReplicas": 4, "targets": {"kvUsage": "0.8"}}}},
    "ratio": {"spec.scalingPolicy.ratio": {"min": "0.5", "max": "10"}},
    "issuer": {"spec.tls.issuerRef": {"name": "ca"}},
    "secret": {"spec.tls.secretName": "tls"},
    "budget": {"spec.prefill.gpu.count": 1, "spec.scalingPolicy.maxGPUs": 2},
    "grace": {"spec.decode.terminationGracePeriodSeconds": 330},
    "grace after a short drain": {"spec.drain.timeoutSeconds": 10, "spec.decode.terminationGracePeriodSeconds": 40},
    "topology": {"spec.topology": {"mode": "Required", "key": "kubernetes.io/hostname"}},
    "rdma": {"spec.transport.kv": {"protocol": "RDMA", "rdma": {"count": 2}}},
}
REFUSED = {
    "prefill alone": ({"spec.decode": REMOVE}, "spec.decode"),
    "decode alone": ({"spec.prefill": REMOVE}, "spec.prefill"),
    "prefill with mixed": ({"spec.decode": REMOVE, "spec.mixed": MIXED}, "spec.decode"),
    "no role": ({"spec.prefill": REMOVE, "spec.decode": REMOVE}, "spec.prefill"),
    "block sizes": ({"spec.prefill.engine.blockSize": 16}, "spec.prefill.engine.blockSize"),
    "block sizes with the common engine": (
        {"spec.engine.blockSize": 16, "spec.decode.engine.blockSize": 64},
        "spec.prefill.engine.blockSize",
    ),
    "dtypes": ({"spec.decode.engine.dtype": "float32"}, "spec.prefill.engine.dtype"),
    "one zero": ({"spec.prefill.replicas": 0}, "spec.prefill.replicas"),
    "zero beside absent": ({"spec.prefill.replicas": 0, "spec.decode.replicas": REMOVE}, "spec.prefill.replicas"),
    "GPUs": ({"spec.prefill.gpu.count": 2}, "spec.prefill.gpu.count"),
    "tensor": ({"spec.prefill.parallelism.tensor": 2}, "spec.prefill.parallelism.tensor"),
    "pipeline": ({"spec.decode.parallelism.pipeline": 2}, "spec.decode.parallelism.pipeline"),
    "data": ({"spec.decode.parallelism.data": 2}, "spec.decode.parallelism.data"),
    "pods": ({"spec.decode.podsPerReplica": 2}, "spec.decode.podsPerReplica"),
    "no source": ({"spec.model.source": {}}, "spec.model.source"),
    "two sources": ({"spec.model.source.pvc": {"claimName": "a"}}, "spec.model.source"),
    "replicas of a scaled role": (
        {"spec.decode.scaling": {"mode": "External", "maxReplicas": 2}},
        "spec.decode.replicas",
    ),
    "no maximum": (
        {"spec.decode": {"scaling": {"mode": "External"}}},
        "spec.decode.scaling.maxReplicas",
    ),
    "order": (
        {"spec.decode": {"scaling": {"mode": "External", "minReplicas": 3, "maxReplicas": 2}}},
        "spec.decode.scaling.minReplicas",
    ),
    "unused targets": ({"spec.decode.scaling.targets": {"kvUsage": "0.8"}}, "spec.decode.scaling.targets"),
    "target of the other role": (
        {"spec.prefill": {"scaling": {"mode": "Managed", "maxReplicas": 4, "targets": {"kvUsage": "0.8"}}}},
        "spec.prefill.scaling.targets.kvUsage",
    ),
    "ratio": ({"spec.scalingPolicy.ratio": {"min": "10", "max": "9"}}, "spec.scalingPolicy.ratio.min"),
    "both origins": ({"spec.tls": {"secretName": "a", "issuerRef": {"name": "b"}}}, "spec.tls.secretName"),
    "unused origin": ({"spec.tls": {"mode": "Disabled", "secretName": "a"}}, "spec.tls.mode"),
    "budget": ({"spec.prefill.gpu.count": 1, "spec.scalingPolicy.maxGPUs": 1}, "spec.scalingPolicy.maxGPUs"),
    "grace": ({"spec.decode.terminationGracePeriodSeconds": 329}, "spec.decode.terminationGracePeriodSeconds"),
    "topology": ({"spec.topology.mode": "Preferred"}, "spec.topology.key"),
    "unused rdma": ({"spec.transport.kv.rdma": {"count": 2}}, "spec.transport.kv.rdma"),
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepted(changes):
    parse(edited(changes))


@pytest.mark.parametrize(("changes", "path"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(changes, path):
    with pytest.raises(SpecError) as caught:
        parse(edited(changes))
    assert [problem.path for problem in caught.value.problems] == [path]


def test_both_paths_are_named_when_a_pair_differs():
    with pytest.raises(SpecError, match=r"spec\.prefill\.engine\.blockSize and spec\.decode\.engine\.blockSize"):
        parse(edited({"spec.prefill.engine.blockSize": 16}))


def test_immutable_fields():
    old = parse(edited()).spec
    same = parse(edited({"spec.prefill.replicas": 3})).spec
    other = parse(edited({"spec.model.name": "other", "spec.transport.kv.protocol": "TCP"})).spec
    assert list(same.refused_changes(old)) == []
    assert [field for field, _ in other.refused_changes(old)] == ["model.name", "transport.kv.protocol"]
