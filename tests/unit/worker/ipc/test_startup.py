"""Settings survive the command line; a wrong one is named; folders of dead workers are removed."""

import os
import subprocess
from pathlib import Path

import pytest

from pdcluster_worker.config import EngineConfig, ExecutorConfig, KVProtocol
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.ipc import runtime
from pdcluster_worker.ipc.startup import PARENT_VARIABLE, command_line, decode_config, encode_config, environment

CONFIG = ExecutorConfig(
    model_path=Path("/models/a b"),
    model_name="m",
    engine=EngineConfig(profile=Path("profile.json"), kv_blocks=7),
    kv_protocol=KVProtocol.RDMA,
    gpu_count=1,
    rank=2,
    world_size=4,
    plan_socket="ipc:///p",
    report_socket="ipc:///r",
    instance_id="i",
    threads=3,
    cpu_affinity=(0, 1),
    host="10.0.0.1",
)


def test_settings_survive_the_command_line() -> None:
    assert decode_config(command_line(CONFIG)[-1]) == CONFIG


@pytest.mark.parametrize(("old", "new", "field"), [('"rank":2', '"rank":"two"', "rank"), ('"RDMA"', '"USB"', "USB")])
def test_a_wrong_setting_is_named(old: str, new: str, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        decode_config(encode_config(CONFIG).replace(old, new))


def test_threads_and_the_parent_travel_in_the_environment() -> None:
    variables = environment(CONFIG)
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables[PARENT_VARIABLE] == str(os.getpid())


def test_folders_of_the_dead_are_removed_and_no_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime.tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["true"]) as child:
        child.wait()
    dead, foreign = tmp_path / f"{runtime.PREFIX}{child.pid}-x", tmp_path / f"{runtime.PREFIX}name"
    dead.mkdir()
    foreign.mkdir()
    (dead / "plan-0").touch()
    mine = runtime.make_socket_folder()
    other = runtime.make_socket_folder()
    assert not dead.exists()
    assert foreign.exists()
    assert mine.exists()
    assert mine != other
    assert mine.stat().st_mode & 0o777 == 0o700


def test_each_rank_has_sockets_of_its_own() -> None:
    addresses = [address for rank in range(3) for address in runtime.socket_addresses(Path("/f"), rank)]
    assert len(set(addresses)) == 6
    assert all(address.startswith("ipc:///f/") for address in addresses)
