"""A spec that the API server takes and nobody can act on is told in a condition, and holds up no other PDCluster."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, cluster, has_condition
from cluster_fixtures import gpu_node, namespace
from cluster_identity import chart_identity
from cluster_operator import OperatorProcess, operator_process
from cluster_proxy import Fault, Proxy, Spoiling, proxied

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(200), pytest.mark.xdist_group("bad input")]

ALWAYS = 1_000_000


def overlay(**spec: Any) -> Manifest:
    return {"decode__podTemplate": {"spec": spec}}


def named(name: str, **edit: Any) -> Manifest:
    return {**cluster(**edit), "metadata": {"name": name}}


def message_of(found: Manifest | None, kind: str) -> str:
    entries = (found or {})["status"]["conditions"]
    return next(str(entry["message"]) for entry in entries if entry["type"] == kind)


BAD: list[tuple[str, Manifest, str, str]] = [
    (
        "containers that are no list",
        overlay(containers="main"),
        "InvalidSpec",
        "spec.decode.podTemplate.spec: containers must be a list",
    ),
    (
        "a container without a name",
        overlay(containers=[{"image": "a"}]),
        "InvalidSpec",
        "spec.decode.podTemplate.spec: containers[0] must be a mapping with the field name",
    ),
    ("a restart policy that no StatefulSet has", overlay(restartPolicy="Never"), "InvalidPodTemplate", "restartPolicy"),
    ("a field of the wrong type", overlay(hostNetwork="perhaps"), "InvalidPodTemplate", "hostNetwork"),
    ("a field that pods do not have", overlay(containerz=[]), "InvalidPodTemplate", "containerz"),
    (
        "more asked for than allowed",
        {"decode__resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
        "InvalidPodTemplate",
        "requests",
    ),
    (
        "a label that is none",
        {"decode__podTemplate": {"metadata": {"labels": {"a": "no label!"}}}},
        "InvalidPodTemplate",
        "labels",
    ),
    ("a node label that is none", {"prefill__nodeSelector": {"a b": "c"}}, "InvalidPodTemplate", "nodeSelector"),
    ("a Secret that is not there", {"tls": {"secretName": "missing"}}, "CertificateInvalid", "Secret missing"),
    (
        "an issuer of nobody",
        {"tls": {"issuerRef": {"name": "missing"}}},
        "CertManagerNotInstalled",
        "spec.tls.issuerRef",
    ),
    (
        "an account that is not there",
        {"security": {"serviceAccountName": "missing"}},
        "PodsRefused",
        'serviceaccount "missing" not found',
    ),
    ("a priority that is not there", {"decode__priorityClassName": "missing"}, "PodsRefused", "missing"),
    ("a runtime that is not there", {"prefill__runtimeClassName": "missing"}, "PodsRefused", "missing"),
]


@pytest.fixture(scope="module")
async def place(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """One namespace and one operator for all that is wrong; at the end a good cluster shows that it lives."""
    folder = tmp_path_factory.mktemp("operator")
    async with namespace(control_plane) as admin, gpu_node(admin):
        identity = chart_identity(control_plane, admin.namespace, folder)
        with operator_process(folder, identity, admin.namespace, PDC_SHORTAGE_SECONDS="1"):
            yield admin
            await admin.create(named("good"))
            await admin.wait(CLUSTER, "good", has_condition("Ready", "True"), seconds=60)


@pytest.mark.parametrize(("edit", "reason", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
async def test_what_cannot_be_acted_on_is_named(place: Client, edit: Manifest, reason: str, words: str) -> None:
    await place.create(named("bad", **edit))
    try:
        found = await place.wait(CLUSTER, "bad", has_condition("Degraded", "True", reason), seconds=30)
        assert words in message_of(found, "Degraded")
    finally:
        await place.delete(CLUSTER, "bad")
        await place.wait("apps/v1/StatefulSet", "bad-decode", lambda found: found is None)


@pytest.mark.parametrize("does", [Spoiling.SILENCE, 500], ids=["never answered", "answered with an error"])
async def test_a_cluster_whose_every_write_fails_delays_no_other(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path, does: int | Spoiling
) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        fault = Fault(r"PATCH (?!pdclusters)\w+ broken", does, ALWAYS)
        proxy.faults.append(fault)
        operator = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, {})
        try:
            await admin.create(named("broken", prefill__replicas=1))
            await until(proxy, "PATCH controllerrevisions broken")
            await admin.create(named("healthy", prefill__replicas=1))
            await admin.wait(CLUSTER, "healthy", has_condition("Ready", "True"), seconds=30)
            assert not has_condition("Ready", "True")(await admin.get(CLUSTER, "broken"))
            found = await admin.wait(CLUSTER, "broken", has_condition("Degraded", "True", "ApiCallsFail"), seconds=60)
            assert "ControllerRevision broken-" in message_of(found, "Degraded")
            fault.times = 0
            await admin.wait(CLUSTER, "broken", has_condition("Ready", "True"), seconds=90)
        finally:
            await asyncio.to_thread(operator.close)
            print(operator.program.tail())


async def until(proxy: Proxy, start: str) -> None:
    """Returns when a call of that name has come; TimeoutError after half a minute."""
    async with asyncio.timeout(30):
        while not any(call.startswith(start) for call in proxy.calls):
            await asyncio.sleep(0.05)
