"""The demo's chat model through the official client equals an independent float32 implementation. Real workers."""

import json
from typing import Any

import openai
import pytest
from worker_processes import ROOT, ManagedProcess, running_workers, start_router

SMOLLM = ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"
CASES: list[dict[str, Any]] = json.loads((ROOT / "tests/golden/smollm2/golden.json").read_text())["cases"]


@pytest.mark.demo_model
@pytest.mark.timeout(300)
@pytest.mark.parametrize("roles", [("mixed",), ("prefill", "decode")], ids=["mixed", "1P1D"])
def test_chat(roles: tuple[str, ...]) -> None:
    with running_workers(*roles, model=SMOLLM) as workers, start_router(workers, SMOLLM) as router:
        with client_of(router) as client:
            for case in CASES:
                check_whole(client, case)
            check_streamed(client, CASES[0])
        for worker in workers:
            worker.check_nothing_held()


def client_of(router: ManagedProcess) -> openai.OpenAI:
    """Its requests wait in the router's queue until the workers are linked."""
    return openai.OpenAI(base_url=f"http://{router.ready['address']}/v1", api_key="any", max_retries=0)


def check_whole(client: openai.OpenAI, case: dict[str, Any]) -> None:
    answer = client.chat.completions.create(
        model="test",
        messages=case["messages"],
        temperature=0,
        max_tokens=48,
        extra_body={"return_token_ids": True},
    )
    choice = answer.choices[0].model_dump()
    assert choice["prompt_token_ids"] == case["prompt"]
    assert choice["token_ids"] == case["greedy"]
    assert choice["message"]["content"] == case["text"]
    assert choice["finish_reason"] == ("stop" if case["greedy"][-1] == 2 else "length")
    assert answer.usage.completion_tokens == len(case["greedy"])


def check_streamed(client: openai.OpenAI, case: dict[str, Any]) -> None:
    stream = client.chat.completions.create(
        model="test", messages=case["messages"], temperature=0, max_tokens=48, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == case["text"]
