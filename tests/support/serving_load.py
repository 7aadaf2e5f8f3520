"""A small real PDCluster for end-to-end tests, and a load of streams whose every token is known beforehand."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from cluster_client import Client, Manifest

GOLDEN = Path(__file__).parents[1] / "golden" / "ernie45-tiny"
CASES = json.loads((GOLDEN / "golden.json").read_text())["cases"]


def manifest(**spec: Any) -> Manifest:
    """One prefill and one decode worker, named demo; `spec` replaces parts."""
    role = {"replicas": 1, "gpu": {"count": 0}}
    return {
        "apiVersion": "pdcluster.dev/v1alpha1",
        "kind": "PDCluster",
        "metadata": {"name": "demo"},
        "spec": {
            "model": {"name": "ernie-tiny", "source": {"hostPath": {"path": str(GOLDEN)}}},
            "prefill": role,
            "decode": role,
            "transport": {"kv": {"protocol": "TCP"}},
            "drain": {"timeoutSeconds": 20},
            **spec,
        },
    }


Ask = Callable[[str, dict[str, Any]], Awaitable[list[int]]]
"""The tokens of one case, asked of the router at an address."""


async def complete(address: str, case: dict[str, Any]) -> list[int]:
    """The tokens of a greedy completion, as one answer."""
    async with httpx.AsyncClient(trust_env=False, timeout=100) as http:
        answer = await http.post(_completions(address), json=_body(case))
    assert answer.status_code == 200, answer.text
    return list(answer.json()["choices"][0]["token_ids"])


async def stream(address: str, case: dict[str, Any]) -> list[int]:
    """The tokens of a greedy completion, streamed by the router at `address`; fails on any error event."""
    tokens: list[int] = []
    async with (
        httpx.AsyncClient(trust_env=False, timeout=120) as http,
        http.stream("POST", _completions(address), json={**_body(case), "stream": True}) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                event = json.loads(line.removeprefix("data: "))
                assert "error" not in event, event
                tokens += [token for choice in event["choices"] for token in choice.get("token_ids") or []]
    return tokens


def _completions(address: str) -> str:
    return f"http://{address}:8080/v1/completions"


def _body(case: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": "ernie-tiny",
        "prompt": case["prompt"],
        "max_tokens": len(case["greedy"]),
        "temperature": 0,
        "return_token_ids": True,
    }


@contextlib.asynccontextmanager
async def under_load(address: str, streams: int = 3, ask: Ask = stream) -> AsyncIterator[list[int]]:
    """Completions one after another in several streams; yields how many were right, and fails on any that was not."""
    right = [0]
    stop = asyncio.Event()

    async def one_after_another(offset: int) -> None:
        for number in itertools.count(offset):
            if stop.is_set():
                return
            case = CASES[number % len(CASES)]
            tokens = await ask(address, case)
            assert tokens == case["greedy"], f"case {number % len(CASES)}: {tokens}"
            right[0] += 1

    async with asyncio.TaskGroup() as group:
        for offset in range(streams):
            group.create_task(one_after_another(offset))
        try:
            yield right
        finally:
            stop.set()


async def router_address(admin: Client) -> str:
    pods = await admin.list("v1/Pod", "pdcluster.dev/cluster=demo,pdcluster.dev/role=router")
    return str(pods[0]["status"]["podIP"])


def has_restarted(found: Manifest | None, restarts: int = 1) -> bool:
    entry = (found or {}).get("status", {}).get("containerStatuses", [{}])[0]
    return entry.get("restartCount", 0) >= restarts and bool(entry.get("ready"))


def show_logs(folder: Path) -> None:
    """The end of what every container said."""
    for log in sorted(folder.glob("*/main.log")):
        print(log, log.read_text(errors="replace")[-3000:])
