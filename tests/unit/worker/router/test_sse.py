"""The buffer between a stream of events and a client."""

import asyncio
from typing import Any

from pdcluster_worker.router.errors import internal
from pdcluster_worker.router.sse import COMMENT, EventStream


class Client:
    """Takes ASGI messages; reads only while `reading` is set."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.reading = asyncio.Event()
        self.reading.set()

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        self.messages.append(message)

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def stream(**settings: Any) -> EventStream:
    return EventStream(
        settings.get("keepalive", 60.0), settings.get("most_behind", 1000), settings.get("dropped", lambda: None)
    )


def test_one_write_per_turn() -> None:
    async def run() -> None:
        client, events = Client(), stream()
        task = asyncio.create_task(events.send_all(client.send, []))
        for text in (b"a", b"b", b"c"):
            events.write(text)
        await turns()
        events.write(b"d")
        await turns()
        events.close()
        await task
        assert client.bodies == [b"abc", b"d", b""]
        assert client.messages[0]["type"] == "http.response.start"
        assert not client.messages[-1]["more_body"]

    asyncio.run(run())


def test_an_error_before_the_first_byte_sends_nothing() -> None:
    async def run() -> None:
        client, events = Client(), stream()
        task = asyncio.create_task(events.send_all(client.send, []))
        await turns()
        events.fail(internal("broken"))
        await task
        assert client.messages == []
        assert events.failure is not None

    asyncio.run(run())


def test_an_error_after_the_first_byte_is_an_event() -> None:
    async def run() -> None:
        client, events = Client(), stream()
        events.write(b"a")
        events.fail(internal("broken"))
        events.write(b"never")
        await events.send_all(client.send, [])
        assert events.failure is None
        assert client.bodies[0].startswith(b"aevent: error\ndata: {")
        assert b"never" not in b"".join(client.bodies)

    asyncio.run(run())


def test_a_client_that_lags_is_dropped() -> None:
    async def run() -> None:
        dropped: list[bool] = []
        client, events = Client(), stream(most_behind=10, dropped=lambda: dropped.append(True))
        client.reading.clear()
        task = asyncio.create_task(events.send_all(client.send, []))
        events.write(b"x" * 10)
        await turns()
        assert not dropped
        events.write(b"y")
        assert dropped == [True]
        assert events.lagged
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert client.bodies == []

    asyncio.run(run())


def test_idle_streams_get_comments() -> None:
    async def run() -> None:
        client, events = Client(), stream(keepalive=0.01)
        task = asyncio.create_task(events.send_all(client.send, []))
        while len(client.bodies) < 2:
            await asyncio.sleep(0)
        events.close()
        await task
        assert client.bodies[:2] == [COMMENT, COMMENT]

    asyncio.run(run())
