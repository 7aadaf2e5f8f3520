"""Certificates on a real API server: the operator's own renewed, those of users checked, cert-manager's asked for."""

import asyncio
import base64
import datetime
from pathlib import Path
from typing import Any

import foreign_kinds
import httpx
import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, STATEFUL_SET, cluster, has_condition
from cluster_identity import chart_identity
from cluster_operator import OperatorProcess, operator_process
from foreign_kinds import CERTIFICATE, CERTIFICATES

from pdcluster_operator.certificate_facts import facts_of
from pdcluster_operator.certificates import Authority

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200)]

SHORT = {"PDC_AUTHORITY_SECONDS": "45", "PDC_LEAF_SECONDS": "40", "PDC_KUBELET_SYNC_SECONDS": "1"}
PHASE = "pdcluster.dev/rotation"


def authority(name: str = "test", lifetime: float = 86400.0) -> Authority:
    now = datetime.datetime.now(datetime.UTC)
    return Authority(name, now, datetime.timedelta(seconds=lifetime))


def in_phase(*wanted: str) -> Any:
    return lambda found: found is not None and found["metadata"]["annotations"].get(PHASE, "") in wanted


async def test_the_operators_own_certificates_renew_themselves_across_a_restart(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, **SHORT
    ) as operator:
        await admin.create(cluster())
        first = await admin.wait("v1/Secret", "demo-ca", in_phase(""))
        await admin.merge(CLUSTER, "demo", {"spec": {"paused": True}})
        await admin.wait("v1/Secret", "demo-ca", in_phase("Trusting"), seconds=60)
        await asyncio.to_thread(operator.restart)
        await admin.wait("v1/Secret", "demo-ca", in_phase("Replacing"), seconds=60)
        last = await admin.wait("v1/Secret", "demo-ca", in_phase(""), seconds=60)
        assert first is not None
        assert last is not None
        assert facts_of(first).key != facts_of(last).key
        await admin.wait("v1/Secret", "demo-prefill-tls", is_by(last), seconds=20)
        await admin.wait("v1/Secret", "demo-router-tls", is_by(last), seconds=20)
        reasons = {event["reason"] for event in await admin.list("events.k8s.io/v1/Event")}
    assert reasons >= {"AuthorityIntroduced", "AuthorityPromoted", "AuthorityRetired", "CertificatesIssued"}


def is_by(signer: Manifest) -> Any:
    wanted = facts_of(signer)

    def holds(found: Manifest | None) -> bool:
        facts = facts_of(found) if found else None
        return facts is not None and (facts.issuer, facts.trust) == (wanted.key, wanted.trust)

    return holds


async def test_seconds_until_expiry_are_a_metric(admin: Client, node: str, operator: OperatorProcess) -> None:
    await admin.create(cluster())
    await admin.wait("v1/Secret", "demo-router-tls", lambda found: found is not None)
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as http:
        while True:
            text = (await http.get(operator.metrics_url)).text
            series = {line.rpartition(" ")[0]: line for line in text.splitlines() if "expiry_seconds{" in line}
            if len(series) == 2:
                break
            await asyncio.sleep(0.2)
    left = sorted(float(line.rpartition(" ")[2]) / 86400 for line in series.values())
    assert left == [pytest.approx(365, abs=1), pytest.approx(3650, abs=1)]


async def test_a_broken_authority_is_told_and_once_deleted_made_anew(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster())
    await admin.wait("v1/Secret", "demo-router-tls", lambda found: found is not None)
    garbage = base64.b64encode(b"garbage").decode()
    await admin.merge("v1/Secret", "demo-ca", {"data": {"tls.key": garbage}})
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "CertificatesBroken"))

    await admin.delete("v1/Secret", "demo-ca")
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "False"))
    fresh = await admin.get("v1/Secret", "demo-ca")
    await admin.wait("v1/Secret", "demo-decode-tls", is_by(fresh))


async def test_a_users_secret_is_checked(admin: Client, node: str, operator: OperatorProcess) -> None:
    """Missing, expired, for the wrong names, by a stranger, and right."""
    roles = [f"{role}.demo.{admin.namespace}.pdcluster" for role in ("prefill", "decode", "router", "operator")]
    second = datetime.timedelta(seconds=-60)
    await admin.create(cluster(tls={"secretName": "certs"}))
    await refused(admin, "CertificateInvalid", "does not exist")

    ours = authority()
    await admin.create(foreign_kinds.pair_secret("certs", ours, roles, lifetime=second))
    await refused(admin, "CertificateExpired", "has expired")

    await admin.apply(foreign_kinds.pair_secret("certs", ours, roles[:2]))
    await refused(admin, "CertificateInvalid", "router.demo")

    strange = foreign_kinds.pair_secret("certs", authority("stranger"), roles)
    trusted = base64.b64encode(ours.certificate).decode()
    await admin.apply({**strange, "data": {**strange["data"], "ca.crt": trusted}})
    await refused(admin, "CertificateInvalid", "no authority that signed")

    await admin.apply(foreign_kinds.pair_secret("certs", ours, roles))
    await nudged(admin, has_condition("Degraded", "False"))
    template = (await admin.get(STATEFUL_SET, "demo-prefill"))["spec"]["template"]["spec"]
    assert {"secretName": "certs", "defaultMode": 420} in [volume.get("secret") for volume in template["volumes"]]
    assert await admin.find("v1/Secret", "demo-ca") is None, "no authority of the operator's own"


async def refused(admin: Client, reason: str, text: str) -> None:
    def holds(found: Manifest | None) -> bool:
        entries = (found or {}).get("status", {}).get("conditions", [])
        told = [entry["message"] for entry in entries if (entry["type"], entry["reason"]) == ("Degraded", reason)]
        return bool(told) and text in told[0]

    await nudged(admin, holds)


async def nudged(admin: Client, holds: Any) -> None:
    """Nobody watches a user's Secret: it is read at the next turn, which a touch brings about."""

    async def touch() -> None:
        for number in range(60):
            await asyncio.sleep(1)
            await admin.merge(CLUSTER, "demo", {"metadata": {"annotations": {"touched": str(number)}}})

    toucher = asyncio.create_task(touch())
    try:
        await admin.wait(CLUSTER, "demo", holds, seconds=40)
    finally:
        toucher.cancel()


async def test_cert_manager_is_asked_for_certificates_once_it_is_there(
    admin: Client, node: str, operator: OperatorProcess
) -> None:
    await admin.create(cluster(tls={"issuerRef": {"name": "internal", "kind": "ClusterIssuer"}}))
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", "CertManagerNotInstalled"))
    try:
        await foreign_kinds.install(admin, CERTIFICATES)
        await admin.wait(CLUSTER, "demo", has_condition("Progressing", "True", "CertificatesPending"), seconds=60)
        signer = authority()
        for role in ("prefill", "decode", "router", "operator"):
            asked = await admin.wait(CERTIFICATE, f"demo-{role}-cert", lambda found: found is not None)
            assert asked is not None
            assert asked["spec"]["dnsNames"] == [f"{role}.demo.{admin.namespace}.pdcluster"]
            assert asked["spec"]["issuerRef"]["kind"] == "ClusterIssuer"
            await foreign_kinds.issue(admin, asked, signer)
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        await drift_is_undone(admin)
        await admin.merge(CLUSTER, "demo", {"spec": {"tls": None}})
        await admin.wait(CERTIFICATE, "demo-router-cert", lambda found: found is None, seconds=90)
    finally:
        await foreign_kinds.remove(admin, CERTIFICATES)


async def drift_is_undone(admin: Client) -> None:
    await admin.merge(CERTIFICATE, "demo-router-cert", {"spec": {"dnsNames": ["elsewhere"]}})
    await admin.wait(
        CERTIFICATE,
        "demo-router-cert",
        lambda found: found is not None and found["spec"]["dnsNames"] != ["elsewhere"],
    )
    await admin.delete(CERTIFICATE, "demo-decode-cert")
    await admin.wait(CERTIFICATE, "demo-decode-cert", lambda found: found is not None)
