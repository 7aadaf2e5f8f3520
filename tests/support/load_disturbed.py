"""Streams while something happens to the workers: the tokens that clients see must be those of a quiet run."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from load_deployment import Deployment, request_body
from load_http import StreamClient, StreamResult, open_stream

STREAM_TIMEOUT = 180.0


class Streams:
    """Open streams of one test; `token_counts` grow while it runs."""

    def __init__(self, cluster: Deployment) -> None:
        self.cluster = cluster
        self.clients: list[StreamClient] = []
        self._news = asyncio.Event()

    async def open(self, bodies: Sequence[Mapping[str, object]]) -> None:
        address = self.cluster.base.removeprefix("http://")
        opened = (open_stream(address, request_body(body), self._news.set) for body in bodies)
        self.clients += await asyncio.gather(*opened)

    @property
    def token_counts(self) -> list[int]:
        return [len(client.result.tokens) for client in self.clients]

    async def reached(self, tokens: int) -> None:
        """Until every stream has so many tokens, or has ended."""
        while any(not client.done.done() and len(client.result.tokens) < tokens for client in self.clients):
            self._news.clear()
            await self._news.wait()

    async def results(self) -> list[StreamResult]:
        return list(await asyncio.gather(*(client.done for client in self.clients)))


Disturbance = Callable[[Streams], Awaitable[None]]


async def quiet(streams: Streams) -> None:
    """Nothing happens."""


def run_streams(
    cluster: Deployment, bodies: Sequence[Mapping[str, object]], disturb: Disturbance = quiet
) -> list[StreamResult]:
    """All at once, with `disturb` beside them (it may open more); returns when it and all streams have ended."""

    async def run() -> list[StreamResult]:
        streams = Streams(cluster)
        async with asyncio.timeout(STREAM_TIMEOUT):
            await streams.open(bodies)
            await disturb(streams)
            return await streams.results()

    return asyncio.run(run())


def check_same(disturbed: Sequence[StreamResult], undisturbed: Sequence[StreamResult]) -> None:
    """No error, and token for token the same."""
    for number, (seen, wanted) in enumerate(zip(disturbed, undisturbed, strict=True)):
        assert not seen.error, f"stream {number}: {seen.error}"
        assert seen.status == 200
        assert seen.tokens == wanted.tokens, f"stream {number} differs from token {first_difference(seen, wanted)} on"
        assert seen.finish_reason == wanted.finish_reason


def first_difference(seen: StreamResult, wanted: StreamResult) -> int:
    pairs = enumerate(zip(seen.tokens, wanted.tokens, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(seen.tokens), len(wanted.tokens)))


async def kill_and_restart(cluster: Deployment, numbers: Sequence[int]) -> None:
    """SIGKILL all of them at once, then start each anew at its port; returns when all are ready."""
    await kill_and_start(cluster, numbers)
    await asyncio.to_thread(cluster.wait_workers)


async def kill_and_start(cluster: Deployment, numbers: Sequence[int]) -> None:
    """The same, but returns before they are ready; one that is not ready yet may be killed again."""

    def run() -> None:
        for number in numbers:
            cluster.workers[number].child.kill()
        for number in numbers:
            cluster.restart(number)

    await asyncio.to_thread(run)


def sampled_bodies(number: int, prompt: int, tokens: int) -> list[dict[str, object]]:
    """Temperature 1 and a seed each; prompts differ from their first token on."""
    generator = random.Random(number * 1009 + prompt)
    return [
        {
            "prompt": [generator.randrange(3, 512) for _ in range(prompt)],
            "max_tokens": tokens,
            "temperature": 1.0,
            "seed": seed,
            "ignore_eos": True,
        }
        for seed in range(number)
    ]
