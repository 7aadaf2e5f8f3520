"""The router as a process: its lines, its ports, its end. Workers are scripted."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from router_fake_worker import Script
from router_harness import MODEL, RouterHarness
from worker_processes import ManagedProcess

from pdcluster_worker.core.wire import Role


def start(h: RouterHarness, *arguments: str) -> ManagedProcess:
    workers = [part for worker in h.workers for part in ("--worker", f"{worker.role.value}={worker.address}")]
    common = ("--model-path", str(MODEL), "--model-name", "fake", "--port", "0")
    return ManagedProcess("router", *common, *workers, *arguments)


@contextmanager
def client_of(router: ManagedProcess) -> Iterator[httpx.Client]:
    """Once a worker is connected."""
    address = router.wait_for("ready")["address"]
    with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
        while client.get("/ready").status_code != 200:
            client.get("/health").raise_for_status()
        yield client


def test_lines_and_a_clean_end() -> None:
    with RouterHarness(Role.MIXED) as h, start(h, "--metrics-port", "0") as router, client_of(router) as client:
        body = {"model": "fake", "prompt": "secret words", "max_tokens": 4}
        response = client.post("/v1/completions", json=body, headers={"X-Request-Id": "abc"})
        assert response.status_code == 200
        line = router.wait_for("request")
        assert (line["request_id"], line["status"], line["output_tokens"]) == ("abc", 200, 4)
        assert set(line["stages"]) >= {"queue", "reserve", "prefill", "transfer", "first_token", "decode"}
        assert "secret" not in json.dumps(router.lines)
        metrics = client.get("/metrics").text
        assert 'pdc_requests_total{path="/v1/completions",status="200"} 1.0' in metrics
        assert 'pdc_tokens_total{kind="output"} 4.0' in metrics
        assert "pdc_time_to_first_token_seconds_count 1.0" in metrics
        assert router.terminate() == 0
        assert router.noise == []


def test_open_streams_end_before_the_router_does() -> None:
    with RouterHarness(Role.MIXED, script=Script(pace=0.05)) as h, start(h) as router, client_of(router) as client:
        body = {"model": "fake", "prompt": "abc", "max_tokens": 20, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            router.child.send_signal(signal.SIGTERM)
            router.child.send_signal(signal.SIGTERM)
            router.wait_for("draining")
            with httpx.Client(base_url=client.base_url) as other:
                assert other.get("/ready").status_code == 503
                refused = other.post("/v1/completions", json={"model": "fake", "prompt": "abc"})
                assert refused.status_code == 503
                assert "retry-after" in refused.headers
            assert sum(line.startswith("data: {") for line in lines) == 20
        assert router.wait_ended() == 0


def test_streams_that_do_not_end_in_time_are_told() -> None:
    with RouterHarness(Role.MIXED, script=Script(pace=0.05)) as h, start(h, "--drain-timeout", "0.3") as router:
        with client_of(router) as client:
            body = {"model": "fake", "prompt": "abc", "max_tokens": 2000, "stream": True}
            with client.stream("POST", "/v1/completions", json=body) as response:
                lines = response.iter_lines()
                next(lines)
                router.child.send_signal(signal.SIGTERM)
                assert "event: error" in list(lines)
        assert router.wait_ended() == 0
        h.wait(lambda: not h.leaks())


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--port", "{taken}"), "cannot listen on"),
        (("--metrics-port", "{taken}"), "cannot listen on"),
        (("--model-path", "{empty}/none.gguf"), "does not exist"),
        (("--model-path", "{empty}/broken.gguf"), "broken.gguf"),
        (("--api-key-file", "{empty}/keys"), "no key"),
        (("--worker", "nonsense"), "nonsense"),
        (("--cluster", "demo.default"), "Kubernetes"),
    ],
    ids=lambda value: str(value),
)
def test_starts_that_fail_say_why(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    (tmp_path / "keys").write_text("\n")
    with RouterHarness() as h:
        taken = h.url.rpartition(":")[2]
        filled = [argument.format(taken=taken, empty=tmp_path) for argument in arguments]
        with start(h, *filled) as router:
            failed = router.wait_for("failed")
            assert reason in failed["reason"]
            assert router.wait_ended() == 1


def test_one_slow_client_does_not_slow_another() -> None:
    """Two streams of one worker: one client reads nothing while the other gets all of its tokens."""
    with RouterHarness(Role.MIXED, script=Script(pace=0.001)) as h, h.client() as lazy, h.client() as eager:
        body = {"model": "fake", "prompt": "abc", "max_tokens": 500, "stream": True}
        with lazy.stream("POST", "/v1/completions", json=body):
            answer = eager.post("/v1/completions", json=body | {"stream": False})
            assert answer.json()["usage"]["completion_tokens"] == 500
        h.wait(lambda: not h.leaks())
