"""`pdc run` with real workers and the small checkpoint: the contract of its lines, deaths, stops."""

import re
import shutil
import signal

import httpx
import pytest
from operator_manifests import TINY, edited
from operator_run import REAL, LocalRun, pid_of, write_manifest

pytestmark = pytest.mark.timeout(300)
READY = 120.0
QUESTION = {"model": "ernie-tiny", "prompt": [5, 6, 7, 8], "max_tokens": 8, "temperature": 0, "return_token_ids": True}


def manifest(folder, changes=None):
    common = {"spec.model.source.hostPath.path": str(TINY), "spec.engine": {"maxModelLength": 512}}
    one = {"spec.prefill.replicas": 1, "spec.decode.replicas": 1}
    return write_manifest(folder, edited({**common, **one, **(changes or {})}))


def complete(line):
    """Token ids of one completion."""
    reply = httpx.post(f"{line['endpoint']}/v1/completions", json=QUESTION, timeout=60, trust_env=False)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["token_ids"]


def test_a_pair_serves_survives_deaths_and_stops(tmp_path):
    with LocalRun(REAL, manifest(tmp_path)) as run:
        line = run.next_line(READY)
        assert [entry["role"] for entry in line["processes"]] == ["prefill", "decode", "router"]
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+", entry["grpc"]) for entry in line["processes"])
        assert httpx.get(f"{line['endpoint']}/ready", trust_env=False).status_code == 200
        for entry in line["processes"]:
            assert "pdc_" in httpx.get(entry["metrics"], trust_env=False).text
        tokens = complete(line)
        assert len(tokens) == 8
        for name in ("demo-decode-0", "demo-prefill-0", "demo-router-0"):
            run.kill(line, name)
            previous, line = line, run.next_line(READY)
            assert pid_of(line, name) != pid_of(previous, name)
            assert complete(line) == tokens
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 0
        assert run.left() == []


def test_a_mixed_worker_with_mutual_tls(tmp_path):
    document = edited({"spec.model.source.hostPath.path": str(TINY), "spec.tls": {"mode": "MTLS"}})
    document["spec"] = {name: document["spec"][name] for name in ("model", "tls")}
    document["spec"]["mixed"] = {"gpu": {"count": 0}, "engine": {"maxModelLength": 512}}
    with LocalRun(REAL, write_manifest(tmp_path, document)) as run:
        line = run.next_line(READY)
        assert len(complete(line)) == 8
        run.process.terminate()
        assert run.wait() == 0
        assert run.left() == []


def test_a_pair_with_mutual_tls(tmp_path):
    with LocalRun(REAL, manifest(tmp_path, {"spec.tls": {"mode": "MTLS"}})) as run:
        assert len(complete(run.next_line(READY))) == 8
        run.process.terminate()
        assert run.wait() == 0


def test_a_checkpoint_without_a_tensor_fails_the_run(tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(TINY, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with LocalRun(REAL, manifest(tmp_path, {"spec.model.source.hostPath.path": str(broken)})) as run:
        assert run.wait(READY) == 1
        errors = run.errors()
        assert re.search(r"pdc: demo-(prefill|decode)-0: .*model\.safetensors", errors), errors
        assert run.more_lines() == []
