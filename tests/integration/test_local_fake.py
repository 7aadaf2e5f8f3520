"""`pdc run` as a supervisor, with pretended pods: real processes, ports and signals, no model."""

import fcntl
import json
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from operator_manifests import edited
from operator_run import FAKE, REAL, LocalRun, pid_of, write_manifest

NAMES = ["demo-prefill-0", "demo-prefill-1", "demo-decode-0", "demo-decode-1", "demo-router-0"]


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest with changes; its model is an empty folder."""
    (tmp_path / "models" / "ernie45-tiny").mkdir(parents=True)
    return lambda changes=None: write_manifest(tmp_path, edited(changes))


def with_environment(role, **variables):
    return {f"spec.{role}.env": [{"name": name, "value": value} for name, value in variables.items()]}


def refused(file, *arguments):
    """Exit status and stderr of a run that does not start."""
    done = subprocess.run([*FAKE, "run", "-f", str(file), *arguments], capture_output=True, text=True, timeout=30)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_one_line_when_all_is_ready(manifest):
    with LocalRun(FAKE, manifest()) as run:
        line = run.next_line()
        assert set(line) == {"endpoint", "processes"}
        assert [entry["name"] for entry in line["processes"]] == NAMES
        assert [entry["role"] for entry in line["processes"]] == ["prefill", "prefill", "decode", "decode", "router"]
        for entry in line["processes"]:
            assert re.fullmatch(r"127\.0\.0\.1:\d+", entry["grpc"])
            assert httpx.get(entry["metrics"], trust_env=False).status_code == 200
        assert httpx.get(line["endpoint"] + "/ready", trust_env=False).status_code == 200
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 0
        assert run.more_lines() == []
        assert run.left() == []


def test_killed_pods_come_back_at_their_ports_with_one_line_each(manifest):
    with LocalRun(FAKE, manifest()) as run:
        before = run.next_line()
        for name in [*NAMES, NAMES[0], NAMES[0]]:
            run.kill(before, name)
            after = run.next_line()
            for old, new in zip(before["processes"], after["processes"], strict=True):
                assert {**old, "pid": 0} == {**new, "pid": 0}
                assert (old["pid"] == new["pid"]) is (old["name"] != name)
            assert after["endpoint"] == before["endpoint"]
            before = after
        run.process.terminate()
        assert run.wait() == 0
        assert run.left() == []
        assert run.more_lines() == []


def test_nothing_is_left_of_a_dead_pod(manifest):
    with LocalRun(FAKE, manifest(with_environment("decode", FAKE_ORPHAN="1"))) as run:
        before = run.next_line()
        orphans = psutil.Process(pid_of(before, "demo-decode-0")).children(recursive=True)
        assert orphans
        run.kill(before, "demo-decode-0")
        run.next_line()
        assert not [orphan for orphan in orphans if orphan.is_running()]


def test_the_death_of_all_at_once(manifest):
    with LocalRun(FAKE, manifest()) as run:
        before = run.next_line()
        for name in NAMES:
            run.kill(before, name)
        lines = [run.next_line() for _ in NAMES]
        assert not {entry["pid"] for entry in lines[-1]["processes"]} & {entry["pid"] for entry in before["processes"]}


def test_repeated_signals_change_nothing(manifest):
    with LocalRun(FAKE, manifest()) as run:
        run.next_line()
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            run.process.send_signal(number)
        assert run.wait() == 0
        assert run.left() == []
        assert run.errors().count("stopping") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_before_anything_was_started(manifest, number):
    with LocalRun(REAL, manifest()) as run:
        _until(lambda: "/pydantic" in Path(f"/proc/{run.process.pid}/maps").read_text())
        run.process.send_signal(number)
        assert run.wait() == 0
        assert run.more_lines() == []


def test_a_stop_while_loading(manifest):
    with LocalRun(FAKE, manifest(with_environment("decode", FAKE_HANG="1"))) as run:
        _until(lambda: run.errors().count("ready, pid") == 3)
        run.process.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        assert run.more_lines() == []


def test_a_deaf_pod_is_killed_in_time(manifest):
    with LocalRun(FAKE, manifest(with_environment("decode", FAKE_STUBBORN="1", FAKE_ORPHAN="1"))) as run:
        run.next_line()
        run.process.send_signal(signal.SIGTERM)
        assert run.wait(limit=10.0) == 0
        assert run.left() == []


def test_a_killed_supervisor_leaves_nothing(manifest):
    with LocalRun(FAKE, manifest()) as run:
        run.next_line()
        run.process.kill()
        assert run.left(5.0) == []


def test_a_checkpoint_that_fails_to_load_fails_the_run(manifest):
    status, errors = refused(manifest(with_environment("decode", FAKE_FAIL="tensor lm_head.weight is missing")))
    assert status == 1
    assert re.search(r"pdc: demo-decode-[01]: tensor lm_head.weight is missing", errors)


def test_a_pod_that_ends_by_itself_fails_the_run_with_its_last_words(manifest):
    status, errors = refused(manifest(with_environment("prefill", FAKE_EXIT="2")))
    assert status == 1
    assert re.search(r"pdc: demo-prefill-[01]: it ended with exit status 2\n  Error: no such option", errors)


def test_a_pod_that_is_never_ready_fails_the_run(manifest):
    status, errors = refused(manifest(with_environment("prefill", FAKE_HANG="1")), "--start-timeout", "2")
    assert status == 1
    assert "it was not ready within 2 s" in errors


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"spec.decode.engine": {"blockSize": 0}}, "spec.decode.engine.blockSize"),
        ({"spec.prefill.bogus": 1}, "spec.prefill.bogus"),
        ({"spec.model.source.hostPath.path": "./nowhere"}, "spec.model.source.hostPath.path"),
        ({"spec.model.source": {"s3": {"uri": "s3://a/b"}}}, "spec.model.source.s3"),
    ],
)
def test_a_bad_manifest_is_refused_by_path(manifest, changes, path):
    status, errors = refused(manifest(changes))
    assert status == 1
    assert f"pdc: {path}: " in errors


def test_a_file_that_is_not_there(tmp_path):
    status, errors = refused(tmp_path / "nothing.yaml")
    assert status == 1
    assert "No such file" in errors


def test_a_port_in_use(manifest):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, errors = refused(manifest(), "--port", str(port))
    assert status == 1
    assert f"port {port} of 127.0.0.1 is in use" in errors


def test_the_chosen_port_is_used_and_reusable_at_once(manifest):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for _ in range(2):
        with LocalRun(FAKE, manifest(), "--port", str(port)) as run:
            line = run.next_line()
            assert line["endpoint"] == f"http://127.0.0.1:{port}"
            assert httpx.get(line["endpoint"] + "/ready", trust_env=False).status_code == 200


def test_nobody_has_to_read(manifest):
    """Pipes that are full, or closed at the other end, hold nothing up."""
    command = [*FAKE, "run", "-f", str(manifest()), "--json", "--verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        line = json.loads(run.stdout.readline())
        fcntl.fcntl(run.stderr.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        run.stdout.close()
        router = psutil.Process(pid_of(line, "demo-router-0"))
        router.kill()
        _until(lambda: _listens(line["endpoint"]))
        run.terminate()
        assert run.wait(15) == 0


def test_logs_go_to_a_folder(manifest, tmp_path):
    with LocalRun(FAKE, manifest(), "--log-dir", str(tmp_path / "logs")) as run:
        run.next_line()
        run.process.terminate()
        assert run.wait() == 0
    assert {file.stem for file in (tmp_path / "logs").iterdir()} == set(NAMES)
    assert "a library prints this on stdout" in (tmp_path / "logs" / "demo-decode-0.log").read_text()


def test_the_manifest_may_come_from_standard_input(manifest, tmp_path):
    text = manifest().read_text()
    done = subprocess.run(
        [*FAKE, "validate", "-f", "-"], input=text, capture_output=True, text=True, timeout=30, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "-: PDCluster demo is valid\n")


def _until(condition, limit=20.0):
    deadline, pause = time.monotonic() + limit, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.05)


def _listens(endpoint):
    try:
        return httpx.get(endpoint + "/ready", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
