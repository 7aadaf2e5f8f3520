"""Certificates that others make: what is missing or wrong about them, and what a cluster does meanwhile."""

import datetime
from typing import Any

import pytest
from cel_table import edited
from foreign_kinds import pair_secret
from pretend_cluster import PretendCluster

from pdcluster_operator.certificate_facts import CertificateFacts, facts_of
from pdcluster_operator.certificates import Authority
from pdcluster_operator.expiry import ExpiryCollector
from pdcluster_operator.reconcile.situation import Adopt, IssueCertificates, TurnAuthority
from pdcluster_operator.resources import ObjectKey
from pdcluster_operator.status import status_of

ISSUER = {"issuerRef": {"name": "internal"}}
ALL = [f"{role}.demo.default.pdcluster" for role in ("prefill", "decode", "router", "operator")]


def now() -> float:
    """Not a constant of the module: that would be minutes old when the last of many tests runs."""
    return datetime.datetime.now(datetime.UTC).timestamp()


def pretend(tls: dict[str, Any]) -> PretendCluster:
    return PretendCluster(edited({"tls": tls})["spec"], now=now())


def authority() -> Authority:
    return Authority("test", datetime.datetime.now(datetime.UTC), datetime.timedelta(days=9))


def user_facts(names: list[str], seconds: float = 3600) -> CertificateFacts:
    return facts_of(pair_secret("certs", authority(), names, lifetime=datetime.timedelta(seconds=seconds)))


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (CertificateFacts(problem="it does not exist"), "CertificateInvalid"),
        (user_facts(ALL[:3]), "CertificateInvalid"),
        (user_facts(ALL, seconds=-60), "CertificateExpired"),
        (user_facts(ALL), None),
    ],
    ids=["missing", "without the operator", "expired", "right"],
)
def test_a_users_certificate(facts: CertificateFacts, reason: str | None) -> None:
    cluster = pretend({"secretName": "certs"})
    cluster.user_certificate = facts
    decision = cluster.turn()
    assert [trouble.reason for trouble in decision.troubles] == ([reason] if reason else [])
    assert not [action for action in decision.actions if isinstance(action, IssueCertificates | TurnAuthority)]


def test_without_cert_manager_the_reason_is_told_and_nothing_is_sent() -> None:
    cluster = pretend(ISSUER)
    cluster.absent.add("Certificate")
    decision = cluster.turn()
    assert [trouble.reason for trouble in decision.troubles] == ["CertManagerNotInstalled"]
    assert ObjectKey("Certificate", "default", "demo-router-cert") not in cluster.objects


def test_what_cert_manager_has_not_issued_is_waited_for() -> None:
    cluster = pretend(ISSUER)
    decision = cluster.turn()
    assert "demo-router-cert" in decision.pending_certificates
    told = status_of(cluster.situation(), decision, {})["conditions"]
    assert ("Progressing", "CertificatesPending") in [(entry["type"], entry["reason"]) for entry in told]

    signer = authority()
    for role in ("prefill", "decode", "router", "operator"):
        marks = {"pdcluster.dev/cluster": "demo", "pdcluster.dev/role": role}
        made = pair_secret(f"demo-{role}-cert", signer, [f"{role}.demo.default.pdcluster"], labels=marks)
        made["metadata"] |= {"namespace": "default", "uid": role, "resourceVersion": "5"}
        cluster.objects[ObjectKey("Secret", "default", f"demo-{role}-cert")] = made
    decision = cluster.turn()
    assert decision.pending_certificates == ""
    assert decision.troubles == ()
    assert ObjectKey("Secret", "default", "demo-router-cert") in cluster.objects, "cert-manager's is not pruned"


def test_the_operators_own_go_when_pods_have_others() -> None:
    """Not before: a pod of the old revision that is made anew still needs its own."""
    cluster = pretend({})
    cluster.settle()
    cluster.edit(tls={"secretName": "certs"})
    cluster.user_certificate = user_facts(ALL)
    cluster.turn()
    assert ObjectKey("Secret", "default", "demo-prefill-tls") in cluster.objects
    cluster.settle()
    assert ObjectKey("Secret", "default", "demo-prefill-tls") not in cluster.objects
    assert ObjectKey("Secret", "default", "demo-ca") not in cluster.objects


def orphaned(names: list[str], **annotations: str) -> PretendCluster:
    """A settled cluster of whose own Secrets these have lost their owner, with other annotations."""
    cluster = pretend({})
    cluster.settle()
    for name in names:
        metadata = cluster.objects[ObjectKey("Secret", "default", name)]["metadata"]
        metadata["ownerReferences"] = []
        metadata["annotations"] |= {f"pdcluster.dev/{key.replace('_', '-')}": text for key, text in annotations.items()}
    return cluster


@pytest.mark.parametrize("annotations", [{}, {"made_for": "another", "adopt": "demo"}], ids=["own", "handed over"])
def test_secrets_that_lost_their_owner_come_home_as_they_are(annotations: dict[str, str]) -> None:
    names = ["demo-ca", "demo-decode-tls"]
    cluster = orphaned(names, **annotations)
    keys = [ObjectKey("Secret", "default", name) for name in names]
    before = [cluster.objects[key]["data"] for key in keys]

    decision = cluster.turn()

    assert [action.child.key for action in decision.actions if isinstance(action, Adopt)] == keys
    assert [cluster.objects[key]["metadata"]["ownerReferences"][0]["uid"] for key in keys] == ["cluster-uid"] * 2
    settled = cluster.settle()
    assert settled.troubles == ()
    assert [cluster.objects[key]["data"] for key in keys] == before


def test_an_authority_that_was_not_made_for_this_very_cluster_signs_nothing() -> None:
    """One of the same name, which is gone, may have left it; or somebody put it there."""
    cluster = orphaned(["demo-ca"], made_for="another")
    decision = cluster.turn()
    assert [trouble.reason for trouble in decision.troubles] == ["NameConflict"]
    assert not [action for action in decision.actions if isinstance(action, Adopt | IssueCertificates | TurnAuthority)]


def test_seconds_until_expiry() -> None:
    cluster = pretend({})
    cluster.settle()
    cluster.situation()
    others = {("team", "own"): user_facts(ALL, seconds=100), ("team", "bad"): CertificateFacts(problem="none")}
    (family,) = ExpiryCollector(cluster.cache, lambda: others, now).collect()
    found = {tuple(sample.labels.values()): sample.value for sample in family.samples}
    assert found == {
        ("default", "demo", "authority"): pytest.approx(3650 * 86400, abs=100),
        ("default", "demo", "leaf"): pytest.approx(365 * 86400, abs=100),
        ("team", "own", "leaf"): pytest.approx(100, abs=20),
    }
