"""Every check of `pdc preflight`: good, doubtful and bad facts, and what is said of each."""

import copy
from dataclasses import replace
from typing import Any

import pytest
from cli_objects import MANAGED, cluster

from pdcluster_operator.cli.checks.facts import RIGHTS, Check, Facts, Found, Verdict
from pdcluster_operator.cli.checks.fit import Demand, accepts, demands, in_use, left_over
from pdcluster_operator.cli.preflight_show import verdicts
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.crd.schema import definitions

NOW = 1_767_225_600.0
FRESH = "2026-01-01T00:00:00.000000Z"
OLD = "2025-12-31T23:00:00.000000Z"
GPU = "nvidia.com/gpu"


def installed() -> dict[str, Found]:
    found = {}
    for definition in copy.deepcopy(definitions()).values():
        definition["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
        found[definition["metadata"]["name"]] = Found(definition)
    return found


def lease(renewed: str, holder: str = "operator-1") -> dict[str, Any]:
    spec = {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15}
    return {"metadata": {"namespace": "system"}, "spec": spec}


def node(name: str, taint: str = "", unschedulable: bool = False, **labels: str) -> dict[str, Any]:
    size = {"cpu": "64", GPU: "2", "rdma/hca": "2"}
    spec: dict[str, Any] = {"unschedulable": unschedulable}
    if taint:
        spec["taints"] = [{"key": taint, "effect": "NoSchedule"}]
    return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": size}}


def pod(where: str, gpus: str, namespace: str = "other", phase: str = "Running") -> dict[str, Any]:
    container = {"resources": {"limits": {GPU: gpus}}}
    metadata = {"namespace": namespace, "labels": {"pdcluster.dev/cluster": "demo"}}
    return {"metadata": metadata, "spec": {"nodeName": where, "containers": [container]}, "status": {"phase": phase}}


def good(**edit: Any) -> Facts:
    """Facts of which every check approves; with a manifest when `edit` is given."""
    return Facts(
        namespace="prod",
        place=Found({"metadata": {"name": "prod"}}),
        definitions=installed(),
        leases=(lease(FRESH),),
        now=NOW,
        renewed=frozenset(),
        rights=dict.fromkeys(RIGHTS, True),
        nodes=(node("a"), node("b")),
        pods=(),
        cluster=parse(cluster(**{"tls": {"mode": "MTLS"}, **edit})),
    )


def told(facts: Facts, name: str) -> Check:
    found = [entry for entry in verdicts(facts) if entry.name == name]
    assert len(found) == 1, found
    return found[0]


def test_a_good_cluster_has_nothing_to_mend():
    assert {entry.verdict for entry in verdicts(good())} == {Verdict.OK, Verdict.NOTE}
    without = replace(good(), cluster=None)
    assert {entry.name.split()[0] for entry in verdicts(without)} == {"crd", "operator", "rights", "namespace"}


def test_definitions():
    name = "crd pdclusters.pdcluster.dev"
    facts = good()

    def with_definition(found: Found) -> Check:
        return told(replace(facts, definitions={**facts.definitions, "pdclusters.pdcluster.dev": found}), name)

    live = facts.definitions["pdclusters.pdcluster.dev"].manifest
    assert live is not None
    assert with_definition(Found()).verdict is Verdict.FAIL
    assert with_definition(Found(allowed=False)).verdict is Verdict.WARN
    assert "is not established" in with_definition(Found({**live, "status": {}})).message
    other, renamed = copy.deepcopy(live), copy.deepcopy(live)
    del other["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["drain"]
    assert with_definition(Found(other)).verdict is Verdict.WARN
    renamed["spec"]["versions"][0]["name"] = "v1beta1"
    assert "does not serve v1alpha1, only v1beta1" in with_definition(Found(renamed)).message


@pytest.mark.parametrize(
    ("leases", "renewed", "verdict"),
    [
        ((lease(FRESH),), frozenset(), Verdict.OK),
        ((lease(OLD),), frozenset(), Verdict.FAIL),
        ((lease(OLD),), frozenset({"system"}), Verdict.OK),
        ((lease(FRESH, holder=""),), frozenset(), Verdict.FAIL),
        ((lease(OLD), lease(FRESH)), frozenset(), Verdict.OK),
        ((), frozenset(), Verdict.FAIL),
        (None, frozenset(), Verdict.WARN),
    ],
)
def test_the_operator(leases, renewed, verdict):
    assert told(replace(good(), leases=leases, renewed=renewed), "operator").verdict is verdict


def test_rights_fail_only_where_the_manifest_needs_them():
    create, drain = RIGHTS[1], next(right for right in RIGHTS if (right.verb, right.plural) == ("patch", "pods"))
    missing = told(replace(good(), rights={create: False}), "rights")
    assert missing.verdict is Verdict.FAIL
    assert "you may not create pdclusters.pdcluster.dev in namespace prod" in missing.message
    assert told(replace(good(), rights={create: False}, cluster=None), "rights").verdict is Verdict.WARN
    assert told(replace(good(), rights={drain: False}), "rights").verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("place", "verdict", "words"),
    [
        (Found(), Verdict.FAIL, "does not exist"),
        (Found(allowed=False), Verdict.WARN, "may not read"),
        (Found({"metadata": {"name": "prod", "deletionTimestamp": "now"}}), Verdict.FAIL, "being deleted"),
    ],
)
def test_the_namespace(place, verdict, words):
    found = told(replace(good(), place=place), "namespace prod")
    assert (found.verdict, words in found.message) == (verdict, True)


@pytest.mark.parametrize("level", ["", "privileged", "baseline", "restricted"])
@pytest.mark.parametrize("source", [{"hostPath": {"path": "/m"}}, {"pvc": {"claimName": "c"}}])
@pytest.mark.parametrize("protocol", ["RDMA", "TCP"])
def test_pod_security(level, source, protocol):
    place = Found({"metadata": {"name": "prod", "labels": {"pod-security.kubernetes.io/enforce": level}}})
    facts = replace(good(model__source=source, transport={"kv": {"protocol": protocol}}), place=place)
    found = told(facts, "namespace prod")
    needs = protocol == "RDMA" or "hostPath" in source
    refused = needs and level in {"baseline", "restricted"}
    assert found.verdict is (Verdict.FAIL if refused else Verdict.OK)
    assert ("IPC_LOCK" in found.message) == (refused and protocol == "RDMA")
    assert ("hostPath" in found.message) == (refused and "hostPath" in source)
    assert ("kubectl label namespace prod" in found.remedy) == refused


def test_a_manifest_that_the_api_server_refuses():
    found = told(replace(good(), refusal="spec.x: Invalid"), "manifest")
    assert (found.verdict, found.message) == (Verdict.FAIL, "is refused: spec.x: Invalid")


def test_devices_on_nodes():
    needy = {"prefill__gpu": {"count": 1}, "decode__gpu": {"count": 1}}
    assert told(good(), "devices").message == "the manifest asks for no GPUs and no RDMA devices"
    assert told(good(**needy), "devices").message == f"nodes have room for 4 {GPU}"
    held = replace(good(**needy), pods=(pod("a", "1"),))
    assert told(held, "devices").verdict is Verdict.WARN
    assert told(replace(held, pods=(pod("a", "1", namespace="prod"),)), "devices").verdict is Verdict.OK
    assert told(replace(held, pods=None), "devices").verdict is Verdict.OK
    found = told(replace(held, nodes=(node("a"),)), "devices")
    assert found.verdict is Verdict.FAIL
    assert f"2 decode pods with 1 {GPU} each" in found.message
    assert GPU in found.remedy
    assert told(replace(held, nodes=None), "devices").verdict is Verdict.WARN
    cordoned = (node("a"), node("b", unschedulable=True))
    assert told(replace(held, nodes=cordoned), "devices").verdict is Verdict.FAIL
    rdma = good(transport={"kv": {"protocol": "RDMA", "rdma": {"count": 2}}})
    assert "pods with 2 rdma/hca each" in told(rdma, "devices").message


def test_where_a_pod_may_go():
    selecting = parse(cluster(decode__nodeSelector={"type": "h100"})).spec.roles()["decode"]
    assert accepts(selecting, node("a", type="h100"))
    assert not accepts(selecting, node("a", type="l4"))
    plain = parse(cluster()).spec.roles()["decode"]
    assert not accepts(plain, node("a", taint="gpu"))
    for toleration in ({"key": "gpu", "operator": "Exists"}, {"operator": "Exists"}, {"key": "gpu"}):
        role = parse(cluster(decode__tolerations=[toleration])).spec.roles()["decode"]
        assert accepts(role, node("a", taint="gpu"))
    other = parse(cluster(decode__tolerations=[{"key": "gpu", "effect": "NoExecute"}])).spec.roles()["decode"]
    assert not accepts(other, node("a", taint="gpu"))


def test_pods_are_placed_where_they_leave_room():
    large, small = ({GPU: 2}, {GPU: 1})
    role = parse(cluster()).spec.roles()["decode"]
    wanted = [Demand("prefill", 2, small, role), Demand("decode", 1, large, role)]
    assert left_over(wanted, [node("a"), node("b")], {}) == []
    assert left_over(wanted, [node("a"), node("b")], {"a": {GPU: 1}, "b": {GPU: 0}})[0][1] == 1
    assert [entry.pods for entry in demands(parse(cluster(decode__replicas=5)).spec)] == [2, 5]


def test_what_other_pods_hold():
    pods = [pod("a", "1"), pod("a", "2"), pod("b", "4", phase="Succeeded"), pod("", "8"), pod("b", "odd")]
    assert in_use(pods, "demo", "prod") == {"a": {GPU: 3}, "b": {GPU: 0}}


@pytest.mark.parametrize(
    ("api", "verdict", "words"),
    [
        (Found(), Verdict.FAIL, "nobody serves external.metrics.k8s.io, which scales decode"),
        (Found(allowed=False), Verdict.WARN, "may not read"),
        (Found({"spec": {"service": {"namespace": "keda", "name": "m"}}}), Verdict.WARN, "keda/m"),
    ],
)
def test_external_metrics(api, verdict, words):
    facts = replace(good(decode__replicas=None, decode__scaling=MANAGED), metrics_api=api)
    found = told(facts, "metrics")
    assert (found.verdict, words in found.message) == (verdict, True)
    assert told(replace(good(), metrics_api=api), "metrics").verdict is Verdict.OK


@pytest.mark.parametrize(("status", "verdict"), [("True", Verdict.OK), ("False", Verdict.FAIL)])
def test_who_owns_external_metrics(status, verdict):
    conditions = [{"type": "Available", "status": status, "message": "no endpoints"}]
    api = Found({"spec": {"service": {"namespace": "keda", "name": "m"}}, "status": {"conditions": conditions}})
    found = told(replace(good(decode__replicas=None, decode__scaling=MANAGED), metrics_api=api), "metrics")
    assert found.verdict is verdict
    assert "keda/m" in found.message


def test_what_the_manifest_refers_to():
    facts = replace(
        good(tls={"issuerRef": {"name": "ca"}}),
        secrets={"there": Found({}), "missing": Found(), "hidden": Found(allowed=False)},
        accounts={"me": Found()},
    )
    assert told(facts, "secret there").verdict is Verdict.OK
    assert told(facts, "secret missing").verdict is Verdict.FAIL
    assert told(facts, "secret hidden").verdict is Verdict.WARN
    assert told(facts, "service account me").verdict is Verdict.FAIL
    assert told(facts, "issuer").verdict is Verdict.FAIL
    assert told(replace(facts, issuer_api=Found({})), "issuer").verdict is Verdict.OK
    assert told(replace(facts, issuer_api=Found(allowed=False)), "issuer").verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("phase", "modes", "verdict"),
    [
        ("Bound", ["ReadWriteMany"], Verdict.OK),
        ("Bound", ["ReadOnlyMany", "ReadWriteOnce"], Verdict.OK),
        ("Bound", ["ReadWriteOnce"], Verdict.WARN),
        ("Pending", ["ReadOnlyMany"], Verdict.WARN),
        ("Lost", ["ReadWriteMany"], Verdict.FAIL),
    ],
)
def test_volume_claims(phase, modes, verdict):
    claim = Found({"spec": {"accessModes": modes}, "status": {"phase": phase}})
    facts = replace(good(model__source={"pvc": {"claimName": "c"}}), claims={"c": claim})
    assert told(facts, "volume claim c").verdict is verdict
    assert told(replace(facts, claims={"c": Found()}), "volume claim c").verdict is Verdict.FAIL


def test_notes_are_about_what_cannot_be_seen():
    notes = {entry.name for entry in verdicts(good()) if entry.verdict is Verdict.NOTE}
    assert notes == {"storage", "network"}
    quiet = good(security={"networkPolicy": False}, model__source={"pvc": {"claimName": "c"}})
    assert not [entry for entry in verdicts(quiet) if entry.verdict is Verdict.NOTE]
    rdma = good(transport={"kv": {"protocol": "RDMA"}})
    assert told(rdma, "memory lock").verdict is Verdict.NOTE
