"""Watches that end, are refused, or fall silent: what happens meanwhile is made up for, or the process ends."""

import asyncio
from pathlib import Path

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, cluster, has_condition
from cluster_operator import OperatorProcess
from cluster_proxy import Fault, Spoiling, proxied

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300), pytest.mark.early]

BUDGET = "policy/v1/PodDisruptionBudget"


async def test_versions_that_are_too_old_are_listed_again(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        proxy.faults += [Fault("WATCH (statefulsets|pdclusters|pods)", Spoiling.EXPIRED, 6)]
        operator = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, {})
        try:
            await admin.create(cluster())
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
            await admin.delete(BUDGET, "demo-prefill")
            await admin.wait(BUDGET, "demo-prefill", lambda found: found is not None, seconds=30)
        finally:
            await asyncio.to_thread(operator.close)
            print(operator.program.tail())
        assert proxy.faults[0].hits == 6


async def test_a_watch_that_falls_silent_is_noticed(
    admin: Client, node: str, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        operator = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, {})
        try:
            await admin.create(cluster())
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=90)
            proxy.is_mute = True
            await admin.delete(BUDGET, "demo-prefill")
            made = await admin.create({**_marker(admin.namespace)})
            assert made["metadata"]["uid"]
            proxy.is_mute = False
            await admin.wait(BUDGET, "demo-prefill", lambda found: found is not None, seconds=150)
        finally:
            await asyncio.to_thread(operator.close)
            print(operator.program.tail())


def _marker(namespace: str) -> dict[str, object]:
    """Another event on the same watch, so that the first has surely been swallowed."""
    labels = {"pdcluster.dev/cluster": "nobody"}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "marker", "namespace": namespace, "labels": labels},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
    }


async def test_an_operator_that_may_not_watch_ends_and_says_why(
    admin: Client, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with proxied(control_plane, admin.namespace, tmp_path) as (proxy, kubeconfig):
        proxy.faults.append(Fault("GET pods", 403, 1000))
        operator = await asyncio.to_thread(OperatorProcess, tmp_path, kubeconfig, admin.namespace, {})
        try:
            assert await asyncio.to_thread(operator.program.wait, 120) == 1
            assert "pods" in operator.program.tail(30)
        finally:
            await asyncio.to_thread(operator.close)
            print(operator.program.tail())
