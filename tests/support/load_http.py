"""Streaming HTTP clients by the hundred in one loop: each its own connection, each event parsed when it comes.

The parser is httptools' and JSON goes through msgspec, so that the clients cost little beside the router that they
measure. Times are seconds of `time.monotonic`.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httptools
import msgspec

DONE = b"[DONE]"
PREFIX = b"data: "


class Choice(msgspec.Struct):
    text: str = ""
    token_ids: list[int] = []
    finish_reason: str | None = None


class Event(msgspec.Struct):
    """A chunk of a streamed completion, or an error."""

    choices: list[Choice] = []
    error: dict[str, object] | None = None


@dataclass(slots=True)
class StreamResult:
    """What one client saw."""

    status: int = 0
    events: int = 0
    tokens: list[int] = field(default_factory=list)
    finish_reason: str | None = None
    error: str = ""
    started: float = 0.0
    first_token: float = 0.0
    ended: float = 0.0


class StreamClient(asyncio.Protocol):
    """Sends one request when connected; `done` is set when the answer is complete or the connection ends."""

    def __init__(self, request: bytes, on_token: Callable[[], None] = lambda: None) -> None:
        """`on_token` is called for each event that carries tokens."""
        self._request = request
        self._on_token = on_token
        self._parser = httptools.HttpResponseParser(self)
        self._decoder = msgspec.json.Decoder(Event)
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self.result = StreamResult()
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.result.started = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.result.error = self.result.error or f"the connection ended: {error}"
            self._finish()

    def on_body(self, body: bytes) -> None:
        if self._parser.get_status_code() != 200:
            self.result.error += body.decode(errors="replace")
            return
        *events, self._rest = (self._rest + body).split(b"\n\n")
        for text in events:
            if text.startswith(PREFIX):
                self._event(text[len(PREFIX) :])

    def on_message_complete(self) -> None:
        self.result.status = self._parser.get_status_code()
        self._finish()
        if self._transport is not None:
            self._transport.close()

    def _event(self, data: bytes) -> None:
        if data == DONE:
            return
        event = self._decoder.decode(data)
        if event.error is not None:
            self.result.error = str(event.error)
        for choice in event.choices:
            if choice.token_ids:
                self.result.events += 1
                self.result.tokens.extend(choice.token_ids)
                self.result.first_token = self.result.first_token or time.monotonic()
                self._on_token()
            self.result.finish_reason = choice.finish_reason or self.result.finish_reason

    def _finish(self) -> None:
        self.result.ended = time.monotonic()
        if not self.done.done():
            self.done.set_result(self.result)


def completion_request(address: str, body: dict[str, object]) -> bytes:
    """POST /v1/completions, streamed, with the token ids in each event."""
    content = msgspec.json.encode(body | {"stream": True, "return_token_ids": True})
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def open_stream(
    address: str, body: dict[str, object], on_token: Callable[[], None] = lambda: None
) -> StreamClient:
    """A connection of its own with the request sent; its `done` is the result."""
    host, port = address.rsplit(":", 1)
    request = completion_request(address, body)
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(lambda: StreamClient(request, on_token), host, int(port))
    return client


async def stream_all(address: str, bodies: Sequence[dict[str, object]], timeout: float) -> list[StreamResult]:
    """All at once, a connection each. Raises TimeoutError."""

    async def one(body: dict[str, object]) -> StreamResult:
        client = await open_stream(address, body)
        result: StreamResult = await client.done
        return result

    async with asyncio.timeout(timeout):
        return list(await asyncio.gather(*(one(body) for body in bodies)))
