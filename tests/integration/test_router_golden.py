"""Greedy tokens through the whole HTTP path equal those of independent float32 implementations. Real workers."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest
from worker_processes import ERNIE, ROOT, running_workers, start_router

SMOLLM = ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
TINY = json.loads((ERNIE / "golden.json").read_text())["cases"]
CHATS = json.loads((ROOT / "tests/golden/smollm2/golden.json").read_text())["cases"]


@contextmanager
def serving(*roles: str, model: Path = ERNIE, **options: object) -> Iterator[httpx.Client]:
    """A client of a router in front of real workers; at the end nothing may be held."""
    with running_workers(*roles, model=model, **options) as workers, start_router(workers, model) as router:
        with httpx.Client(base_url=f"http://{router.ready['address']}", timeout=60) as client:
            wait_ready(client)
            yield client
        for worker in workers:
            worker.check_nothing_held()


def wait_ready(client: httpx.Client) -> None:
    for _ in range(300):
        if client.get("/ready").status_code == 200:
            return
        client.get("/health").raise_for_status()
    raise AssertionError("the router is not ready")


def complete(client: httpx.Client, case: dict[str, list[int]]) -> list[int]:
    body = {
        "model": "test",
        "prompt": case["prompt"],
        "max_tokens": len(case["greedy"]),
        "temperature": 0,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    response = client.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["token_ids"]


def check_tiny(client: httpx.Client) -> None:
    for case in TINY:
        assert complete(client, case) == case["greedy"]


@pytest.mark.parametrize("roles", [("mixed",), ("prefill", "decode")], ids=["mixed", "1P1D"])
def test_tiny(roles: tuple[str, ...]) -> None:
    with serving(*roles) as client:
        check_tiny(client)
        check_tiny(client)


def test_tiny_on_two_pairs_at_once() -> None:
    with serving("prefill", "prefill", "decode", "decode") as client, ThreadPoolExecutor(12) as pool:
        cases = (TINY * 12)[:24]
        assert list(pool.map(lambda case: complete(client, case), cases)) == [case["greedy"] for case in cases]


@pytest.mark.demo_model
@pytest.mark.parametrize("roles", [("mixed",), ("prefill", "decode")], ids=["mixed", "1P1D"])
def test_chat(roles: tuple[str, ...]) -> None:
    with serving(*roles, model=SMOLLM) as http, openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="any") as client:
        for case in CHATS:
            fields = {"model": "test", "messages": case["messages"], "temperature": 0, "max_tokens": 48}
            whole = client.chat.completions.create(**fields, extra_body={"return_token_ids": True}).choices[0]
            assert whole.model_dump()["prompt_token_ids"] == case["prompt"]
            assert whole.model_dump()["token_ids"] == case["greedy"]
            assert whole.message.content == case["text"]
            stopped = case["greedy"][-1] == 2
            assert whole.finish_reason == ("stop" if stopped else "length")
            stream = client.chat.completions.create(**fields, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == case["text"]
