"""Models that are not a folder of the node: fetched from a hub before the pods start; the tokens are the right ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_client import Client
from cluster_control_plane import ControlPlane
from cluster_expect import CLUSTER, has_condition
from cluster_identity import chart_identity
from cluster_operator import operator_process
from fake_hub import COMMIT, REPO, Hub
from kubelet_agent import Agent
from serving_load import CASES, GOLDEN, manifest, router_address, show_logs, stream

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    names = [path.name for path in GOLDEN.iterdir() if path.name != "golden.json"]
    with Hub({name: (GOLDEN / name).read_bytes() for name in names}, large={WEIGHTS}, token="hf_test") as running:
        yield running


async def test_a_model_of_a_hub_is_served(
    admin: Client, agent: Agent, control_plane: ControlPlane, tmp_path: Path, hub: Hub
) -> None:
    """One file arrives damaged at first: its container fails and is started again."""
    hub.corrupt.add(WEIGHTS)
    mirror = [{"name": "HF_ENDPOINT", "value": hub.url}]
    role = {"replicas": 1, "gpu": {"count": 0}, "env": mirror}
    source = {"huggingFace": {"repo": REPO, "revision": COMMIT, "tokenSecret": "hub"}}
    model = {"name": "ernie-tiny", "source": source}
    await admin.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"}, "stringData": {"token": "hf_test"}}
    )
    with operator_process(tmp_path, chart_identity(control_plane, admin.namespace, tmp_path), admin.namespace):
        await admin.create(manifest(model=model, prefill=role, decode=role, router={"env": mirror}))
        try:
            await admin.wait(CLUSTER, "demo", has_condition("Ready", "True"), seconds=240)
        except TimeoutError:
            show_logs(tmp_path)
            raise
        address = await router_address(admin)
        for case in CASES[:2]:
            assert await stream(address, case) == case["greedy"]
    fetched = [path for path, _, _ in hub.requests if path.endswith(f"/{WEIGHTS}")]
    assert len(fetched) == 3, "by two workers, one of them twice, and not by the router"
    assert {token for path, _, token in hub.requests if "/resolve/" in path} == {"hf_test"}
