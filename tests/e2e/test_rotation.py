"""Certificates change under a load of streams, and every token comes right, also of pods that begin in the middle.

The operator, router and workers are the real ones; the node gives a pod its Secrets anew every second.
"""

import datetime
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_identity import chart_identity
from cluster_operator import operator_process
from foreign_kinds import pair_secret
from kubelet_agent import Agent
from serving_load import CASES, has_restarted, manifest, router_address, show_logs, stream, under_load

from pdcluster_operator.certificate_facts import facts_of
from pdcluster_operator.certificates import Authority

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(500)]

SHORT = {
    "PDC_AUTHORITY_SECONDS": "120",
    "PDC_LEAF_SECONDS": "70",
    "PDC_KUBELET_SYNC_SECONDS": "3",
    "PDC_PEERS_SECONDS": "2",
}
PHASE = "pdcluster.dev/rotation"


def in_phase(phase: str, unlike: str = "") -> Any:
    """The authority's Secret in a phase of its rotation, with another key than `unlike`."""

    def holds(found: Manifest | None) -> bool:
        notes = found["metadata"].get("annotations", {}) if found else {}
        return found is not None and notes.get(PHASE, "") == phase and facts_of(found).key != unlike

    return holds


async def test_a_rotation_loses_no_stream(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """A worker and then another are killed in the middle, so that new connections are made in every phase."""
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, **SHORT):
        await admin.create(manifest())
        try:
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=200)
            await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "True"), seconds=30)
        except TimeoutError:
            show_logs(tmp_path)
            raise
        first = facts_of(await admin.get("v1/Secret", "demo-ca"))
        async with under_load(await router_address(admin), streams=2) as right:
            await admin.wait("v1/Secret", "demo-ca", in_phase("Trusting"), seconds=120)
            await kill(admin, agent, "demo-decode-0")
            await admin.wait("v1/Secret", "demo-ca", in_phase("Replacing", first.key), seconds=60)
            await kill(admin, agent, "demo-prefill-0")
            await admin.wait("v1/Secret", "demo-ca", in_phase("", first.key), seconds=60)
            before = right[0]
            await kill(admin, agent, "demo-decode-0", restarts=2)
        assert right[0] > before > 0
        leaf = facts_of(await admin.get("v1/Secret", "demo-decode-tls"))
        assert leaf.issuer == facts_of(await admin.get("v1/Secret", "demo-ca")).key != first.key
        await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "True"), seconds=60)


async def kill(admin: Client, agent: Agent, name: str, restarts: int = 1) -> None:
    """Until the worker serves again, with what its Secret holds by then."""
    process = agent.pods[admin.namespace, name].process_id("main")
    assert process is not None
    os.kill(process, signal.SIGKILL)
    await admin.wait("v1/Pod", name, lambda found: has_restarted(found, restarts), seconds=60)


async def test_a_users_certificate_lets_pods_meet_only_when_it_is_there_right_and_valid(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    """No Secret, one for other names, an expired one, a valid one: the pods that wait take it up by themselves."""
    signer = Authority("the user's", datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1))
    names = [f"{role}.demo.{admin.namespace}.pdcluster" for role in ("prefill", "decode", "router", "operator")]
    strange = [name.replace("demo", "other") for name in names]
    expired = {"lifetime": datetime.timedelta(seconds=-30)}
    with operator_process(
        tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace, PDC_PEERS_SECONDS="2"
    ):
        await admin.create(manifest(tls={"secretName": "certs"}))
        await degraded(admin, "CertificateInvalid")
        await admin.wait(
            "v1/Pod", "demo-decode-0", lambda found: "containerStatuses" in (found or {}).get("status", {})
        )
        assert agent.pods[admin.namespace, "demo-decode-0"].process_id("main") is None, "it waits for what it mounts"

        await admin.create(pair_secret("certs", signer, strange))
        for name in ("demo-prefill-0", "demo-decode-0"):
            await admin.wait("v1/Pod", name, is_ready, seconds=120)
        await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "False", "NoReachablePeer"), seconds=60)
        await admin.wait(CLUSTER, "demo", has_condition("Available", "False"))

        await admin.apply(pair_secret("certs", signer, names, **expired))
        await degraded(admin, "CertificateExpired")
        assert has_condition("Available", "False")(await admin.get(CLUSTER, "demo"))

        await admin.apply(pair_secret("certs", signer, names))
        await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=60)
        await admin.wait(CLUSTER, "demo", has_condition("TransportReady", "True"), seconds=60)
        address = await router_address(admin)
        for case in CASES[:2]:
            assert await stream(address, case) == case["greedy"]
        pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo")
        restarts = [pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods]
        assert restarts == [0, 0, 0], "nobody had to start anew"


async def degraded(admin: Client, reason: str) -> None:
    await admin.wait(CLUSTER, "demo", has_condition("Degraded", "True", reason), seconds=60)


def is_ready(found: Manifest | None) -> bool:
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)
