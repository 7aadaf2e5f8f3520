"""The rotation of a cluster's own authority: every step in its order and time, whatever happens in between."""

import base64
import datetime
from typing import Any

import pytest
from cel_table import edited
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from pretend_cluster import PretendCluster

from pdcluster_operator.certificate_facts import facts_of
from pdcluster_operator.reconcile.rotation import Periods, Phase, phase_of, renewal
from pdcluster_operator.reconcile.situation import Decision, IssueCertificates, TurnAuthority
from pdcluster_operator.resources import ObjectKey

PERIODS = Periods(authority=9000.0, leaf=6000.0, sync=60.0)
ROLES = ("prefill", "decode", "router")


def settled(**edit: object) -> PretendCluster:
    spec = edited({key.replace("__", "."): value for key, value in edit.items()})["spec"]
    cluster = PretendCluster(spec, periods=PERIODS)
    cluster.settle()
    return cluster


def secret(cluster: PretendCluster, name: str) -> dict[str, Any]:
    return cluster.objects[ObjectKey("Secret", "default", f"demo-{name}")]


def content(cluster: PretendCluster, name: str, key: str) -> bytes:
    return base64.b64decode(secret(cluster, name)["data"][key])


def trusts(cluster: PretendCluster, here: bytes, there: bytes, role: str) -> bool:
    """Whether a pod that trusts `here` lets one in that shows `there`."""
    store = Store(x509.load_pem_x509_certificates(here))
    verifier = PolicyBuilder().store(store).time(moment(cluster)).build_server_verifier(x509.DNSName(identity(role)))
    try:
        verifier.verify(x509.load_pem_x509_certificate(there), [])
    except VerificationError:
        return False
    return True


def moment(cluster: PretendCluster) -> Any:

    return datetime.datetime.fromtimestamp(cluster.now, datetime.UTC)


def identity(role: str) -> str:
    return f"{role}.demo.default.pdcluster"


def tls_actions(decision: Decision) -> list[Any]:
    return [action for action in decision.actions if isinstance(action, IssueCertificates | TurnAuthority)]


def turn_until_quiet(cluster: PretendCluster) -> list[str]:
    """Turns until nothing is to be done at this moment; the reasons of the events in between."""
    reasons: list[str] = []
    for _ in range(6):
        decision = cluster.turn()
        reasons += [note.reason for note in decision.notes]
        if not tls_actions(decision):
            return reasons
    raise AssertionError(f"it never rests: {reasons}")


def test_at_rest_nothing_is_done_and_the_next_turn_is_when_the_first_certificate_is_due() -> None:
    cluster = settled()
    decision = cluster.turn()
    assert decision.actions == ()
    due = renewal(facts_of(secret(cluster, "decode-tls")))
    assert decision.wake_after == pytest.approx(due - cluster.now, abs=2)


def test_a_leaf_that_is_old_is_replaced_by_the_same_authority() -> None:
    cluster = settled()
    old, authority = content(cluster, "prefill-tls", "tls.crt"), content(cluster, "ca", "tls.crt")
    cluster.now = renewal(facts_of(secret(cluster, "prefill-tls"))) + 1
    assert turn_until_quiet(cluster) == ["CertificatesIssued"]
    assert content(cluster, "prefill-tls", "tls.crt") != old
    assert content(cluster, "ca", "tls.crt") == authority


def test_a_rotation_never_leaves_two_pods_that_do_not_trust_each_other() -> None:
    """At every step, a pod that has not seen it yet and one that has: both ways."""
    cluster = settled()
    cluster.now = renewal(facts_of(secret(cluster, "router-tls"))) + 1
    turn_until_quiet(cluster)
    cluster.now = renewal(facts_of(secret(cluster, "ca"))) + 1
    pods = [snapshot(cluster)]
    reasons: list[str] = []
    for _ in range(4):
        reasons += turn_until_quiet(cluster)
        fresh = snapshot(cluster)
        for seen in (*pods[-1:], fresh):
            for role in ROLES:
                assert trusts(cluster, seen["trust"], fresh[role], role)
                assert trusts(cluster, fresh["trust"], seen[role], role)
        pods.append(fresh)
        cluster.now += PERIODS.propagation + 1
    steps = [reason for reason in reasons if reason != "CertificatesIssued"]
    assert steps == ["AuthorityIntroduced", "AuthorityPromoted", "AuthorityRetired"]
    assert not trusts(cluster, pods[-1]["trust"], pods[0]["router"], "router"), "the old authority is out"
    assert "next.key" not in secret(cluster, "ca")["data"]


def snapshot(cluster: PretendCluster) -> dict[str, bytes]:
    leaves = {role: content(cluster, f"{role}-tls", "tls.crt") for role in ROLES}
    return {"trust": content(cluster, "router-tls", "ca.crt"), **leaves}


def test_the_new_authority_does_not_sign_before_every_pod_can_trust_it() -> None:
    cluster = settled()
    cluster.now = renewal(facts_of(secret(cluster, "ca"))) + 1
    turn_until_quiet(cluster)
    introduced = content(cluster, "ca", "tls.crt")
    decision = cluster.turn()
    assert decision.wake_after == pytest.approx(PERIODS.propagation, abs=2)
    cluster.now += PERIODS.propagation - 2
    turn_until_quiet(cluster)
    assert content(cluster, "ca", "tls.crt") == introduced
    cluster.now += 4
    turn_until_quiet(cluster)
    assert content(cluster, "ca", "tls.crt") != introduced


def test_a_pod_that_came_late_to_the_bundle_is_waited_for() -> None:
    cluster = settled()
    cluster.now = renewal(facts_of(secret(cluster, "ca"))) + 1
    cluster.turn()
    cluster.now += PERIODS.propagation + 1
    cluster.turn()
    assert phase_of(facts_of(secret(cluster, "ca"))) is Phase.TRUSTING, "the leaves got the bundle only now"
    cluster.now += PERIODS.propagation - 2
    turn_until_quiet(cluster)
    assert phase_of(facts_of(secret(cluster, "ca"))) is Phase.TRUSTING


@pytest.mark.parametrize("field", ["paused", "rollout__paused"])
def test_it_goes_on_while_all_else_is_paused(field: str) -> None:
    cluster = settled()
    cluster.edit(**{field: True})
    cluster.now = renewal(facts_of(secret(cluster, "ca"))) + 1
    reasons = []
    for _ in range(4):
        reasons += turn_until_quiet(cluster)
        cluster.now += PERIODS.propagation + 1
    assert [reason for reason in reasons if reason.startswith("Authority")] == [
        "AuthorityIntroduced",
        "AuthorityPromoted",
        "AuthorityRetired",
    ]


def test_a_paused_cluster_that_has_nothing_gets_nothing() -> None:
    cluster = PretendCluster(edited({"paused": True})["spec"])
    assert cluster.turn().actions == ()


def test_an_authority_that_has_expired_is_replaced_at_once() -> None:
    cluster = settled()
    cluster.now += PERIODS.authority + 10
    reasons = turn_until_quiet(cluster)
    assert reasons == ["AuthorityReplaced", "CertificatesIssued"]
    fresh = snapshot(cluster)
    assert all(trusts(cluster, fresh["trust"], fresh[role], role) for role in ROLES)
    assert cluster.turn().actions == ()


@pytest.mark.parametrize("key", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("damage", ["missing", "garbage", "another"])
def test_a_leaf_that_is_damaged_is_made_anew(key: str, damage: str) -> None:
    cluster = settled()
    data = secret(cluster, "decode-tls")["data"]
    if damage == "missing":
        del data[key]
    else:
        source = "ca" if damage == "another" else "decode-tls"
        data[key] = secret(cluster, source)["data"]["tls.key" if key == "tls.crt" else "tls.crt"]
        if damage == "garbage":
            data[key] = base64.b64encode(b"garbage").decode()
    assert turn_until_quiet(cluster) == ["CertificatesIssued"] or key == "ca.crt"
    facts = facts_of(secret(cluster, "decode-tls"))
    assert (facts.problem, facts.names) == ("", (identity("decode"),))
    assert facts.trust == facts_of(secret(cluster, "ca")).trust


def test_a_damaged_authority_is_told_and_left_alone() -> None:
    cluster = settled()
    secret(cluster, "ca")["data"]["tls.key"] = base64.b64encode(b"garbage").decode()
    decision = cluster.turn()
    assert [trouble.reason for trouble in decision.troubles] == ["CertificatesBroken"]
    assert decision.actions == ()


def test_a_lost_half_of_a_rotation_is_begun_again() -> None:
    cluster = settled()
    cluster.now = renewal(facts_of(secret(cluster, "ca"))) + 1
    turn_until_quiet(cluster)
    del secret(cluster, "ca")["data"]["next.key"]
    cluster.now += PERIODS.propagation + 1
    turn_until_quiet(cluster)
    assert phase_of(facts_of(secret(cluster, "ca"))) is Phase.TRUSTING
    for _ in range(3):
        cluster.now += PERIODS.propagation + 1
        turn_until_quiet(cluster)
    assert phase_of(facts_of(secret(cluster, "ca"))) is Phase.STEADY


def test_an_unknown_phase_of_a_later_version_is_brought_to_its_end() -> None:
    cluster = settled()
    secret(cluster, "ca")["metadata"]["annotations"]["pdcluster.dev/rotation"] = "Later"
    cluster.now += PERIODS.propagation + 1
    assert "AuthorityRetired" in turn_until_quiet(cluster)
