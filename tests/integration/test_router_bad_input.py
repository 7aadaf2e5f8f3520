"""Everything that clients may get wrong: a clear 4xx in OpenAI's shape, and nothing else is disturbed."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from router_fake_worker import Script
from router_harness import RouterHarness

from pdcluster_worker.core.wire import Role
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.router.http_server import listen

USER = [{"role": "user", "content": "hello"}]

COMPLETIONS = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [""]}, "prompt"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": {"text": "a"}}, "prompt"),
    ({"prompt": [71, "a"]}, "prompt[0]"),
    ({"prompt": [512]}, "prompt"),
    ({"prompt": [-1]}, "prompt[0]"),
    ({"prompt": [71.5]}, "prompt[0]"),
    ({"prompt": [[71], [99999]]}, "prompt[1]"),
    ({"prompt": [71] * 4096}, "prompt"),
    ({"prompt": [71] * 4090, "max_tokens": 7}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 4096}, "max_tokens"),
    ({"max_tokens": "many"}, "max_tokens"),
    ({"max_tokens": 10**30}, "max_tokens"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": 2}, "min_p"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": 1.5}, "n"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"stop": [""]}, "stop[0]"),
    ({"stop": 5}, "stop"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": {"512": 1}}, "logit_bias"),
    ({"logit_bias": {"hello": 1}}, "logit_bias"),
    ({"logit_bias": {"71": 101}}, "logit_bias.71"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"seed": "x"}, "seed"),
    ({"stream": "yes"}, "stream"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"min_tokens": 17}, "min_tokens"),
    ({"best_of": 3}, "best_of"),
    ({"suffix": "end"}, "suffix"),
    ({"echo": True, "logprobs": 1}, "echo"),
    ({"tools": []}, "tools"),
    ({"no_such_field": 1}, "no_such_field"),
]

CHATS = [
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": "a", "colour": 1}]}, "messages[0].colour"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"max_completion_tokens": 4096}, "max_completion_tokens"),
    ({"max_completion_tokens": 3, "max_tokens": 4}, "max_tokens"),
    ({"logprobs": 3}, "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"prompt": "a"}, "prompt"),
]


@pytest.fixture(scope="module")
def harness():
    with RouterHarness(Role.MIXED) as running:
        yield running
        with running.client() as client:
            answer = client.post("/v1/completions", json={"model": "fake", "prompt": "still fine"})
        assert answer.status_code == 200
        running.wait(lambda: not running.leaks())
        assert len(running.workers[0].submitted) == 1


@pytest.fixture
def client(harness: RouterHarness):
    with harness.client() as made:
        yield made


def check(response: httpx.Response, status: int, param: str | None) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["param"] == param, error
    if param is not None:
        assert param.partition("[")[0].partition(".")[0] in error["message"]


@pytest.mark.parametrize(("fields", "param"), COMPLETIONS, ids=lambda value: str(value)[:40])
def test_completions(client: httpx.Client, fields: dict[str, object], param: str) -> None:
    check(client.post("/v1/completions", json={"model": "fake", "prompt": "hello"} | fields), 400, param)


@pytest.mark.parametrize(("fields", "param"), CHATS, ids=lambda value: str(value)[:40])
def test_chats(client: httpx.Client, fields: dict[str, object], param: str) -> None:
    check(client.post("/v1/chat/completions", json={"model": "fake", "messages": USER} | fields), 400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000])
def test_malformed_json(client: httpx.Client, body: bytes) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        check(client.post(path, content=body), 400, None)


def test_limits_are_named(client: httpx.Client) -> None:
    long = client.post("/v1/completions", json={"model": "fake", "prompt": [71] * 5000})
    assert "4096" in long.json()["error"]["message"]
    assert long.json()["error"]["code"] == "context_length_exceeded"


def test_a_prompt_larger_than_any_pool() -> None:
    with RouterHarness(Role.MIXED, wait_ready=False) as harness, harness.client() as client:
        harness.call(harness.workers[0].kill())
        harness.workers[0].pool_tokens = 64
        harness.call(harness.workers[0].start())
        harness.wait(lambda: harness.server.fleet.limits().max_model_length == 64 and harness.server.fleet.ready())
        response = client.post("/v1/completions", json={"model": "fake", "prompt": [71] * 65})
        check(response, 400, "prompt")
        assert "64 tokens" in response.json()["error"]["message"]


def test_unknown_model(client: httpx.Client) -> None:
    check(client.post("/v1/completions", json={"model": "gpt-4", "prompt": "a"}), 404, "model")
    check(client.post("/v1/completions", json={"prompt": "a"}), 400, "model")
    check(client.get("/v1/models/gpt-4"), 404, "model")


def test_paths_and_methods(client: httpx.Client) -> None:
    check(client.get("/v1/embeddings"), 404, None)
    wrong = client.get("/v1/completions")
    check(wrong, 405, None)
    assert wrong.headers["allow"] == "POST"


def test_body_over_the_cap() -> None:
    with RouterHarness(Role.MIXED, max_body_bytes=1000) as harness, harness.client() as client:
        check(client.post("/v1/completions", content=b"x" * 1001), 413, None)
        check(client.post("/v1/completions", content=iter([b"x" * 600, b"x" * 600])), 413, None)
        assert client.post("/v1/completions", json={"model": "fake", "prompt": "a"}).status_code == 200


def test_request_id_is_echoed(client: httpx.Client) -> None:
    good = client.post("/v1/completions", json={"model": "fake"}, headers={"X-Request-Id": "mine-1"})
    assert good.headers["x-request-id"] == "mine-1"
    assert len(client.post("/v1/completions", content=b"{").headers["x-request-id"]) == 32


def test_api_keys(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("first-key\nsecond-key\n")
    with RouterHarness(Role.MIXED, api_key_file=keys) as harness, harness.client() as client:

        def status(header: str | None) -> int:
            headers = {"authorization": header} if header is not None else {}
            return client.get("/v1/models", headers=headers).status_code

        assert status(None) == 401
        assert status("Bearer wrong") == 401
        assert status("Basic first-key") == 401
        assert status("Bearer") == 401
        assert status("Bearer first-key") == 200
        assert status("Bearer second-key") == 200
        keys.write_text("third-key\n")
        assert status("Bearer first-key") == 401
        assert status("Bearer third-key") == 200
        assert client.get("/health").status_code == 200
        assert client.post("/v1/completions", json={"model": "fake", "prompt": "a"}).status_code == 401


def test_a_thousand_clients_against_a_small_queue() -> None:
    """Some are served, the rest get 429 with Retry-After; all end."""
    body = {"model": "fake", "prompt": "hello", "max_tokens": 3}

    async def one(session: aiohttp.ClientSession) -> tuple[int, str, dict[str, Any]]:
        async with session.post("/v1/completions", json=body) as response:
            return response.status, response.headers.get("retry-after", ""), await response.json()

    async def storm(url: str) -> list[tuple[int, str, dict[str, Any]]]:
        everybody = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url, connector=everybody) as session:
            return await asyncio.gather(*(one(session) for _ in range(1000)))

    with RouterHarness(Role.PREFILL, Role.DECODE, script=Script(pace=0.05), max_queue=64) as harness:
        harness.script.hold = asyncio.Event()
        harness.loop.call_soon_threadsafe(harness.loop.call_later, 3.0, harness.script.hold.set)
        answers = asyncio.run(storm(harness.url))
        served = [answer for status, _, answer in answers if status == 200]
        refused = [(after, answer) for status, after, answer in answers if status == 429]
        assert len(served) + len(refused) == 1000
        assert len(served) >= 64
        assert all(int(after) >= 1 and answer["error"]["code"] == "overloaded" for after, answer in refused)
        assert all(answer["usage"]["completion_tokens"] == 3 for answer in served)
        harness.wait(lambda: not harness.leaks())


def test_a_client_that_does_not_read_is_dropped() -> None:
    """It never slows the others."""
    with RouterHarness(Role.MIXED, max_behind_bytes=4096) as harness:
        host, port = harness.url.removeprefix("http://").split(":")
        body = b'{"model":"fake","prompt":"hello","max_tokens":4000,"stream":true,"logprobs":20}'
        with socket.socket() as lazy:
            lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            lazy.connect((host, int(port)))
            lazy.sendall(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
            )
            metrics = harness.server.metrics.dropped_clients
            harness.wait(lambda: metrics._value.get() == 1)
            harness.wait(lambda: not harness.leaks())
            with harness.client() as client:
                assert client.post("/v1/completions", json={"model": "fake", "prompt": "a"}).status_code == 200


def test_a_port_in_use_is_a_clear_error() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigError, match="cannot listen on"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_giant_requests_do_not_hold_up_others(client: httpx.Client) -> None:
    giants: list[dict[str, object]] = [
        {"prompt": "hello " * 1_000_000},
        {"prompt": [71] * 2_000_000},
        {"prompt": [71] * 1_000_000 + ["x"]},
        {"prompt": "a", "logit_bias": {str(number): "x" for number in range(50_000)}},
        {"prompt": "a"} | {f"field{number}": 1 for number in range(50_000)},
    ]
    for fields in giants:
        response = client.post("/v1/completions", json={"model": "fake", **fields})
        assert response.status_code == 400
        assert len(response.content) < 1000
    messages = [{"role": "user", "content": "a"}] * 50_000
    assert client.post("/v1/chat/completions", json={"model": "fake", "messages": messages}).status_code == 400
    named = client.post("/v1/completions", json={"model": "x" * 1_000_000, "prompt": "a"})
    assert named.status_code == 404
    assert len(named.content) < 1000
