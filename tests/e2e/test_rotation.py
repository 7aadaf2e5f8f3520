"""Certificates change under a load of streams, and every token comes right, also of pods that begin in the middle.

The operator, router and workers are the real ones; the node gives a pod its Secrets anew every second.
"""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_operator import operator_process
from kubelet_agent import Agent
from serving_load import has_restarted, manifest, router_address, show_logs, under_load

from pdcluster_operator.certificate_facts import facts_of

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
    with operator_process(tmp_path, control_plane.kubeconfig, admin.namespace, **SHORT):
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
