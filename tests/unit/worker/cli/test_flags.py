"""Flags become settings; a wrong one is named in one `failed` line, with status 1."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pdcluster_worker import cli, logs
from pdcluster_worker.config import EngineConfig, KVProtocol, RunnerKind, TLSFiles, WorkerConfig
from pdcluster_worker.core.wire import Role
from pdcluster_worker.router.config import Policy, RouterConfig, StaticWorker

ENGINE_FLAGS = {
    "prepare_threads": 7,
    "block_size": 16,
    "kv_blocks": 99,
    "max_model_length": 512,
    "max_batch_tokens": 128,
    "max_running_requests": 9,
    "dtype": "float32",
    "memory_utilization": 0.5,
}
WORKER_FLAGS = {
    "name": "w",
    "revision": "r1",
    "host": "127.0.0.2",
    "grpc_port": 4001,
    "metrics_port": 4002,
    "advertise": "10.0.0.1:4001",
    "gpu_count": 1,
    "threads": 2,
    "drain_timeout": 3.5,
    "cluster": "demo.default",
    "max_message_bytes": 1 << 21,
}
ROUTER_FLAGS = {
    "name": "r",
    "revision": "r1",
    "host": "127.0.0.2",
    "port": 4003,
    "metrics_port": 4004,
    "cluster": "demo.default",
    "max_queue": 5,
    "queue_timeout": 1.5,
    "request_timeout": 2.5,
    "min_disagg_tokens": 3,
    "max_body_bytes": 1000,
    "drain_timeout": 4.5,
    "max_message_bytes": 1 << 21,
}


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs of the test process stay as they are."""
    monkeypatch.setattr(logs, "configure", lambda **_bound: None)
    monkeypatch.delenv("PDC_PREPARE_THREADS", raising=False)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been run."""
    configs: list[Any] = []

    def run(config: object) -> int:
        configs.append(config)
        return 0

    for module, function in (
        ("pdcluster_worker.engine.process", "run_worker"),
        ("pdcluster_worker.router.main", "run_router"),
    ):
        pretended = ModuleType(module)
        setattr(pretended, function, run)
        monkeypatch.setitem(sys.modules, module, pretended)
    return configs


def arguments(flags: dict[str, Any]) -> list[str]:
    return [part for name, value in flags.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def test_every_flag_of_a_worker_arrives(started: list[Any], tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.touch()
    flags = {
        "role": "decode",
        "model_path": tmp_path,
        "model_name": "m",
        "kv_protocol": "RDMA",
        "cpu_affinity": "0,3",
        "tls_cert": "c",
        "tls_key": "k",
        "tls_ca": "a",
        "runner": "Simulated",
        "profile": profile,
        **WORKER_FLAGS,
        **ENGINE_FLAGS,
    }
    assert cli.main(["worker", *arguments(flags), "--no-prefix-caching"]) == 0
    engine = EngineConfig(**ENGINE_FLAGS, prefix_caching=False, runner=RunnerKind.SIMULATED, profile=profile)
    assert started == [
        WorkerConfig(
            role=Role.DECODE,
            model_path=tmp_path,
            model_name="m",
            engine=engine,
            kv_protocol=KVProtocol.RDMA,
            cpu_affinity=(0, 3),
            tls=TLSFiles(Path("c"), Path("k"), Path("a")),
            **WORKER_FLAGS,
        )
    ]


def test_absent_flags_are_the_settings_defaults(started: list[Any], tmp_path: Path) -> None:
    assert cli.main(["worker", "--role", "mixed", "--model-path", str(tmp_path), "--model-name", "m"]) == 0
    (config,) = started
    assert config == WorkerConfig(
        name="worker", role=Role.MIXED, model_path=tmp_path, model_name="m", engine=EngineConfig()
    )


def test_the_environment_stands_in_for_prepare_threads(
    started: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PDC_PREPARE_THREADS", "11")
    needed = ["worker", "--role", "mixed", "--model-path", str(tmp_path), "--model-name", "m"]
    assert cli.main(needed) == 0
    assert cli.main([*needed, "--prepare-threads", "2"]) == 0
    assert [config.engine.prepare_threads for config in started] == [11, 2]


def test_every_flag_of_a_router_arrives(started: list[Any], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.touch()
    flags = {"model_path": tmp_path, "model_name": "m", "api_key_file": keys, "policy": "RoundRobin", **ROUTER_FLAGS}
    workers = ["--worker", "prefill=127.0.0.1:1", "--worker", "decode=[::1]:2"]
    assert cli.main(["router", *arguments(flags), *workers]) == 0
    assert started == [
        RouterConfig(
            model_path=tmp_path,
            model_name="m",
            api_key_file=keys,
            policy=Policy.ROUND_ROBIN,
            workers=(StaticWorker(Role.PREFILL, "127.0.0.1:1"), StaticWorker(Role.DECODE, "[::1]:2")),
            **ROUTER_FLAGS,
        )
    ]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (["worker", "--role", "router"], "--role"),
        (["worker", "--unknown", "1"], "--unknown"),
        (["worker", "--prepare-threads", "0"], "--prepare-threads"),
        (["worker", "--prepare-threads", "many"], "--prepare-threads"),
        (["worker", "--cpu-affinity", "0;1"], "--cpu-affinity"),
        (["worker", "--advertise", "nowhere"], "--advertise"),
        (["worker", "--tls-cert", "c"], "--tls-ca"),
        (["worker", "--profile", "missing.json"], "missing.json"),
        (["worker", "--memory-utilization", "1.5"], "--memory-utilization"),
        (["router", "--worker", "decode"], "--worker"),
        (["router", "--worker", "router=127.0.0.1:1"], "--worker"),
        (["router", "--port", "70000"], "--port"),
        (["router", "--policy", "Random"], "--policy"),
        (["router", "--api-key-file", "missing.keys"], "missing.keys"),
        (["nothing"], "nothing"),
        ([], "command"),
    ],
)
def test_a_wrong_flag_is_named(
    command: list[str], named: str, started: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["--model-path", str(tmp_path), "--model-name", "m"]
    role = ["--role", "mixed"] if command[:1] == ["worker"] and "--role" not in command else []
    assert cli.main([*command[:1], *(needed if command else []), *role, *command[1:]]) == 1
    assert not started
    assert named in "".join(capsys.readouterr())


def test_lines_are_json(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """In a process of its own, as supervisors read it."""
    done = subprocess.run(
        [sys.executable, "-m", "pdcluster_worker", "worker", "--role", "none"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    line = json.loads(done.stderr)
    assert line["event"] == "failed"
    assert "--role" in line["reason"]
