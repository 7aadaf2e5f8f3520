"""A small client of the OpenAI API: one streamed chat answer, and the stages that the router tells of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx

from pdcluster_operator.errors import EndpointError

CONNECT_LIMIT, SILENCE_LIMIT = 10.0, 60.0
"""Seconds; the router sends a comment every 15 s while nothing else comes."""


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Stages:
    """What became of one request. `seconds` by stage, in the order of its life; workers by name, empty when unknown."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    prefill_worker: str = ""
    decode_worker: str = ""


class ChatClient:
    """Talks to one endpoint. Every method raises EndpointError."""

    def __init__(self, endpoint: str, api_key: str = "") -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        limits = httpx.Timeout(SILENCE_LIMIT, connect=CONNECT_LIMIT)
        self._endpoint = endpoint.rstrip("/").removesuffix("/v1")
        try:
            self._client = httpx.Client(base_url=self._endpoint, headers=headers, timeout=limits, trust_env=False)
        except (httpx.InvalidURL, ValueError) as error:
            raise EndpointError(f"{endpoint} is not a URL: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def first_model(self) -> str:
        """The name of the first model that is served."""
        try:
            reply = self._client.get("/v1/models")
            _refuse_error(reply)
            return str(reply.json()["data"][0]["id"])
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except (ValueError, LookupError, TypeError) as error:
            raise EndpointError(f"{self._endpoint} does not answer as an OpenAI server") from error

    def metrics(self, url: str) -> str:
        """A process's metrics as text."""
        try:
            return self._client.get(url).raise_for_status().text
        except httpx.HTTPError as error:
            raise EndpointError(f"{url}: {error}") from error

    def stream(self, model: str, messages: Sequence[Message], **parameters: Any) -> Iterator[Piece | Stages]:
        """The answer piece by piece, then its stages if the server tells them."""
        body = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            "return_stages": True,
            **parameters,
        }
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as reply:
                if reply.status_code != 200:
                    reply.read()
                _refuse_error(reply)
                yield from _pieces(reply.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> EndpointError:
        return EndpointError(f"no answer from {self._endpoint}: {error or type(error).__name__}")


def _refuse_error(reply: httpx.Response) -> None:
    if reply.status_code == 200:
        return
    try:
        message = reply.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = reply.text[:200]
    raise EndpointError(f"refused with {reply.status_code}: {message}")


def _pieces(lines: Iterator[str]) -> Iterator[Piece | Stages]:
    """From the lines of a text/event-stream: comments and blank lines mean nothing."""
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        yield from _of_chunk(data)


def _of_chunk(data: str) -> Iterator[Piece | Stages]:
    try:
        chunk = json.loads(data)
        if "error" in chunk:
            raise EndpointError(f"the answer broke off: {chunk['error'].get('message', chunk['error'])}")
        text = "".join((choice.get("delta") or {}).get("content") or "" for choice in chunk.get("choices", []))
        told = chunk.get("pdcluster")
    except (ValueError, AttributeError, TypeError) as error:
        raise EndpointError(f"a chunk that is not understood: {data[:200]}") from error
    if text:
        yield Piece(text)
    if isinstance(told, dict):
        yield stages_of(told)


def stages_of(told: Mapping[str, Any]) -> Stages:
    """From the `pdcluster` object of the last chunk; what is not a number is left out."""
    stages = told.get("stages")
    seconds = stages if isinstance(stages, dict) else {}
    return Stages(
        {name: float(value) for name, value in seconds.items() if isinstance(value, int | float)},
        str(told.get("prefill_worker") or ""),
        str(told.get("decode_worker") or ""),
    )
