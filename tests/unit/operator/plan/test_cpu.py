"""Cores and threads of one machine, divided."""

import pytest
from operator_manifests import edited

from pdcluster_operator.crd.parse import parse
from pdcluster_operator.crd.values import amount
from pdcluster_operator.plan.cpu import share_cores, share_gpus


def shares(cores, **limits):
    changes = {f"spec.{role}.resources": {"limits": {"cpu": cpu}} for role, cpu in limits.items()}
    return share_cores(parse(edited(changes)).spec, cores)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (4, 1), (8, 2), (17, 4)])
def test_without_limits_all_workers_share_equally(cores, threads):
    found = shares(tuple(range(cores)))
    assert [share.threads for share in found.values()] == [threads] * 4
    assert all(share.affinity == () for share in found.values())


@pytest.mark.parametrize(
    ("limit", "threads"), [("500m", 1), ("1", 1), (1, 1), ("1500m", 1), ("2.9", 2), (3, 3), (64, 8)]
)
def test_a_limit_sets_threads(limit, threads):
    found = shares(tuple(range(8)), prefill=limit)
    assert found["prefill", 0].threads == threads
    assert len(found["prefill", 0].affinity) == threads


def test_limited_workers_get_cores_of_their_own():
    found = shares((0, 1, 4, 5), prefill=1, decode=1)
    assert [found[key].affinity for key in found] == [(0,), (1,), (4,), (5,)]


def test_cores_are_given_again_when_there_are_too_few():
    found = shares((0, 1), prefill=1, decode=1)
    assert [found[key].affinity for key in found] == [(0,), (1,), (0,), (1,)]


def test_gpus_are_numbered():
    spec = parse(edited({"spec.decode.gpu.count": 1})).spec
    assert share_gpus(spec) == {("prefill", 0): (), ("prefill", 1): (), ("decode", 0): (0,), ("decode", 1): (1,)}


@pytest.mark.parametrize(
    ("text", "value"), [("2", 2), ("500m", 0.5), ("1Ki", 1024), ("3k", 3000), ("1.5Gi", 1.5 * 2**30)]
)
def test_quantities(text, value):
    assert float(amount(text)) == value
