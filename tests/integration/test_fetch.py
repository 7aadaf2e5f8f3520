"""A checkpoint fetched by a real process from a hub on loopback: whole, resumed, refused."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, REPO, Hub

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    files = {
        "config.json": b'{"model_type": "tiny"}',
        "tokenizer.json": random.Random(1).randbytes(5_000),
        WEIGHTS: random.Random(2).randbytes(20_000_000),
        "pytorch_model.bin": b"not asked for",
        "onnx/model.onnx": b"nor is this",
        ".gitattributes": b"nor this",
    }
    with Hub(files, large={WEIGHTS}) as running:
        yield running


def fetched(hub: Hub, folder: Path, *arguments: str, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status, and what was logged."""
    command = [sys.executable, "-m", "pdcluster_worker", "fetch", "--repo", REPO, "--to", str(folder), *arguments]
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    settings = {**inherited, "HF_ENDPOINT": hub.url, "HF_HOME": str(folder.parent / "hf"), **environment}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def asked_for(hub: Hub, name: str) -> list[int]:
    """The first byte of each request for a file."""
    return [first for path, first, _ in hub.requests if path.endswith(f"/{name}")]


def test_what_a_worker_reads_is_fetched_at_one_commit(hub: Hub, tmp_path: Path) -> None:
    status, lines = fetched(hub, tmp_path / "models")
    assert status == 0, lines
    names = ("config.json", "tokenizer.json", WEIGHTS)
    assert content(tmp_path / "models") == {name: hub.files[name] for name in names}
    assert lines[-1]["commit"] == COMMIT
    hub.requests.clear()
    assert fetched(hub, tmp_path / "models", "--revision", COMMIT)[0] == 0
    assert [path for path, _, _ in hub.requests if "/resolve/" in path] == [], "all of it is there and right"


def test_a_router_fetches_no_weights(hub: Hub, tmp_path: Path) -> None:
    assert fetched(hub, tmp_path / "models", "--no-weights")[0] == 0
    assert set(content(tmp_path / "models")) == {"config.json", "tokenizer.json"}


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Hub, tmp_path: Path) -> None:
    """By the same process as long as there is any progress, then by the next one: the container is started again."""
    hub.cut[WEIGHTS] = 12_000_000
    status, lines = fetched(hub, tmp_path / "models")
    assert (status, lines[-1]["event"]) == (1, "failed")
    assert 0 < max(asked_for(hub, WEIGHTS)) <= 12_000_000, "the process itself goes on where it was"
    assert not (tmp_path / "models" / WEIGHTS).exists(), "half a file has no name"

    hub.cut.clear()
    hub.requests.clear()
    status, lines = fetched(hub, tmp_path / "models")
    assert status == 0, lines
    (resumed,) = asked_for(hub, WEIGHTS)
    assert resumed > 0
    assert content(tmp_path / "models")[WEIGHTS] == hub.files[WEIGHTS]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_file_that_is_not_what_the_hub_says_is_refused_and_fetched_anew(hub: Hub, tmp_path: Path, name: str) -> None:
    hub.corrupt.add(name)
    status, lines = fetched(hub, tmp_path / "models")
    assert status == 1
    assert lines[-1]["event"] == "failed"
    assert name in lines[-1]["reason"]
    assert not (tmp_path / "models" / name).exists()
    assert fetched(hub, tmp_path / "models")[0] == 0
    assert content(tmp_path / "models")[name] == hub.files[name]


def test_a_file_that_was_damaged_on_disk_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    assert fetched(hub, tmp_path / "models")[0] == 0
    damaged = tmp_path / "models" / "tokenizer.json"
    damaged.write_bytes(bytes(len(hub.files["tokenizer.json"])))
    assert fetched(hub, tmp_path / "models")[0] == 0
    assert damaged.read_bytes() == hub.files["tokenizer.json"]


def test_a_token_opens_a_private_repository(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    status, lines = fetched(hub, tmp_path / "models")
    assert (status, lines[-1]["event"]) == (1, "failed")
    assert "hf_secret" not in json.dumps(lines)
    assert fetched(hub, tmp_path / "models", HF_TOKEN="hf_secret")[0] == 0


def test_a_revision_that_is_not_there_is_named(hub: Hub, tmp_path: Path) -> None:
    status, lines = fetched(hub, tmp_path / "models", "--revision", "nowhere")
    assert status == 1
    assert "nowhere" in lines[-1]["reason"]
