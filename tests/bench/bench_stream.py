"""Streamed tokens per second, with a model that takes no time. `make bench-stream`.

`http_tokens_per_second`: from a mixed worker's engine through the router to 256 HTTP clients over TCP, one SSE event
per token, each parsed by its client. `grpc_tokens_per_second`: from the engine to a router's stream only, where a
client counts every token and checks the order.
"""

import asyncio

from bench_cluster import TINY_KV, check_nothing_held, cpu_between, cpu_seconds, load_workers, simulated_workers
from load_client import LoadClient, LoadRequest
from load_http import stream_all
from report import QUICK, at_least, finish, say, table
from seed_workload import prompt_tokens
from worker_processes import ERNIE, WorkerProcess, start_router

CLIENTS = 256
PROMPT = 16
VOCABULARY = 512
HTTP_TOKENS = 500 if QUICK else 1500
GRPC_TOKENS = 2000 if QUICK else 8000
PROFILE = TINY_KV | {"vocab_size": VOCABULARY, "max_model_length": 16384}
OPTIONS = {"max_running_requests": CLIENTS, "kv_blocks": 40_000, "prefix_caching": False}
TIMEOUT = 300.0


def grpc_rate(worker: WorkerProcess) -> float:
    """Tokens per second from the first token to the last."""
    prompts = [prompt_tokens(number, PROMPT, VOCABULARY) for number in range(CLIENTS)]
    requests = [LoadRequest(prompt, max_tokens=GRPC_TOKENS) for prompt in prompts]

    async def drive() -> float:
        client = LoadClient(load_workers([worker]), requests, CLIENTS, timeout=TIMEOUT)
        await client.connect()
        before = cpu_seconds([worker])
        ledger = await client.run()
        used = cpu_between(before, cpu_seconds([worker]))
        await client.close()
        assert not ledger.failures, list(ledger.failures.items())[:3]
        assert int(ledger.received.sum()) == CLIENTS * GRPC_TOKENS
        seconds = float(ledger.finished.max() - ledger.first_token.min())
        say("gRPC, processor seconds of each second: " + shares(used, seconds))
        return CLIENTS * GRPC_TOKENS / seconds

    return asyncio.run(drive())


def http_rate(worker: WorkerProcess) -> float:
    with start_router([worker], ERNIE, model_name="test", max_queue=2 * CLIENTS) as router:
        bodies: list[dict[str, object]] = [
            {
                "model": "test",
                "prompt": [3 + (number + place) % (VOCABULARY - 3) for place in range(PROMPT)],
                "max_tokens": HTTP_TOKENS,
                "ignore_eos": True,
                "temperature": 0,
            }
            for number in range(CLIENTS)
        ]
        before = cpu_seconds([worker], router.pid)
        results = asyncio.run(stream_all(str(router.ready["address"]), bodies, TIMEOUT))
        used = cpu_between(before, cpu_seconds([worker], router.pid))
    for result in results:
        assert not result.error, result.error
        assert result.events == HTTP_TOKENS == len(result.tokens), (result.events, len(result.tokens))
    seconds = max(result.ended for result in results) - min(result.first_token for result in results)
    say("HTTP, processor seconds of each second: " + shares(used, seconds))
    return CLIENTS * HTTP_TOKENS / seconds


def shares(used: dict[str, float], seconds: float) -> str:
    return ", ".join(f"{name} {value / seconds:.2f}" for name, value in used.items())


def main() -> None:
    with simulated_workers(("mixed", PROFILE, OPTIONS)) as workers:
        grpc = grpc_rate(workers[0])
        check_nothing_held(workers)
        http = http_rate(workers[0])
        check_nothing_held(workers)
    table(["path", "tokens/s"], [["engine to router", grpc], ["engine to 256 HTTP clients", http]])
    figures = {"http_tokens_per_second": http, "grpc_tokens_per_second": grpc}
    targets = [at_least("http_tokens_per_second", 20_000), at_least("grpc_tokens_per_second", 200_000)]
    finish("stream", figures, targets)


if __name__ == "__main__":
    main()
