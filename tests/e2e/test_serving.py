"""A PDCluster whose operator, router and workers are the real ones, over mutual TLS, with a small real model."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cluster_client import Client, Manifest
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_operator import operator_process
from kubelet_agent import Agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

GOLDEN = Path(__file__).parents[1] / "golden" / "ernie45-tiny"
CASES = json.loads((GOLDEN / "golden.json").read_text())["cases"]


def manifest(**spec: Any) -> Manifest:
    return {
        "apiVersion": "pdcluster.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": "demo"},
        "spec": {
            "model": {"name": "ernie-tiny", "source": {"hostPath": {"path": str(GOLDEN)}}},
            "prefill": {"replicas": 1, "gpu": {"count": 0}},
            "decode": {"replicas": 1, "gpu": {"count": 0}},
            "transport": {"kv": {"protocol": "TCP"}},
            "drain": {"timeoutSeconds": 20},
            **spec,
        },
    }


async def complete(address: str, case: dict[str, Any]) -> list[int]:
    """The tokens of a greedy completion, asked of the router at `address`."""
    body = {
        "model": "ernie-tiny",
        "prompt": case["prompt"],
        "max_tokens": len(case["greedy"]),
        "temperature": 0,
        "return_token_ids": True,
    }
    async with httpx.AsyncClient(trust_env=False, timeout=100) as http:
        answer = await http.post(f"http://{address}:8080/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"][0]["token_ids"])


async def router_address(admin: Client) -> str:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role=router")
    return str(pods[0]["status"]["podIP"])


async def test_an_applied_cluster_answers_with_the_right_tokens_and_drains_when_it_shrinks(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path
) -> None:
    with operator_process(tmp_path, control_plane.kubeconfig, admin.namespace):
        await admin.create(manifest())
        try:
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=200)
        except TimeoutError:
            show_logs(tmp_path)
            raise
        address = await router_address(admin)
        for case in CASES[:3]:
            assert await complete(address, case) == case["greedy"]

        await admin.merge(CLUSTER, "demo", {"spec": {"prefill": {"replicas": 0}, "decode": {"replicas": 0}}})
        for name in ("demo-prefill-0", "demo-decode-0"):
            await admin.wait("v1/Pod", name, lambda found: found is None, seconds=60)


def show_logs(folder: Path) -> None:
    for log in sorted(folder.glob("*/main.log")):
        print(log, log.read_text(errors="replace")[-3000:])
