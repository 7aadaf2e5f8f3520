"""The answer as server-sent events: one event per token, written as bytes from parts made once per choice."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.router.answer import Asked, stage_report, usage
from pdcluster_worker.router.errors import APIError
from pdcluster_worker.router.job import Job
from pdcluster_worker.router.logprob_format import Sampled, chat_logprobs, completion_logprobs
from pdcluster_worker.router.output import Output
from pdcluster_worker.router.sampling import Choice

_encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"


class Sink(Protocol):
    """Where the bytes go; never waits."""

    def write(self, data: bytes) -> None: ...
    def fail(self, error: APIError) -> None:
        """Nothing follows: an error before the first byte is a status, after it an event."""
        ...

    def close(self) -> None: ...


class ChoiceStream:
    """Listener of one choice. Its parts of JSON: head, text, middle, logprobs, then the tail or an ending."""

    def __init__(self, asked: Asked, choice: Choice, head: bytes, tail: bytes, answer: "StreamedAnswer") -> None:
        self._asked = asked
        self._choice = choice
        self._answer = answer
        self._output = Output(asked.tokenizer, choice.sampling, asked.stop)
        opening = b'"delta":{"content":' if asked.chat else b'"text":'
        self._head = head + b'{"index":%d,' % choice.index + opening
        self._middle = b'},"logprobs":' if asked.chat else b',"logprobs":'
        self._tail = tail
        self._length = len(choice.text)
        self._plain = not asked.token_ids and choice.sampling.logprobs < 0
        self._plain_tail = self._middle + b'null,"finish_reason":null}' + tail
        self._started = False

    def token(self, token: int, logprob: TokenLogprob | None) -> bool:
        if not self._started:
            self._start()
        offset, text = self._length, self._output.push(token)
        self._length += len(text)
        if self._plain:
            self._answer.write(self._head + _encode(text) + self._plain_tail)
        else:
            self._answer.write(self._event(text, b"null", [token], self._logprobs(token, logprob, offset)))
        return self._output.stopped

    def ended(self, reason: str, error: APIError | None) -> None:
        if error is not None:
            self._answer.fail(error)
            return
        if not self._started:
            self._start()
        extra = self._answer.last_words()
        self._answer.write(self._event(self._output.flush(), _encode(reason), [], b"null", extra))
        self._answer.choice_done()

    def _start(self) -> None:
        """What comes before the first token: the role in a chat, the echoed prompt in a completion."""
        self._started = True
        ids = self._ids([], self._choice.prompt)
        if self._asked.chat:
            opening = self._head.removesuffix(b'"content":') + b'"role":"assistant","content":""},"logprobs":null'
        elif self._choice.text or ids:
            opening = self._head + _encode(self._choice.text) + b',"logprobs":null'
        else:
            return
        self._answer.write(opening + b',"finish_reason":null' + ids + b"}" + self._tail)

    def _event(self, text: str, reason: bytes, tokens: list[int], logprobs: bytes, extra: bytes = b"") -> bytes:
        parts = (self._head, _encode(text), self._middle, logprobs, b',"finish_reason":', reason)
        return b"".join((*parts, self._ids(tokens), b"}", _with(self._tail, extra)))

    def _ids(self, tokens: list[int], prompt: Sequence[int] | None = None) -> bytes:
        if not self._asked.token_ids:
            return b""
        ids = b',"token_ids":' + _encode(tokens)
        return ids if prompt is None else ids + b',"prompt_token_ids":' + _encode(prompt)

    def _logprobs(self, token: int, logprob: TokenLogprob | None, offset: int) -> bytes:
        if logprob is None or self._choice.sampling.logprobs < 0:
            return b"null"
        shape = chat_logprobs if self._asked.chat else completion_logprobs
        return _encode(shape(self._asked.tokenizer, [Sampled(token, logprob, offset)]))


def _with(tail: bytes, extra: bytes) -> bytes:
    """The tail with one more field of the chunk."""
    return tail.replace(b"]", b"]" + extra, 1) if extra else tail


class StreamedAnswer:
    """All choices of one request, into one sink."""

    def __init__(self, asked: Asked, sink: Sink, jobs: Callable[[], Sequence[Job]]) -> None:
        self.write = sink.write
        self._asked = asked
        self._sink = sink
        self._jobs = jobs
        self._open = len(asked.choices)
        self._failed = False
        kind = "chat.completion.chunk" if asked.chat else "text_completion"
        self._fields = {"id": asked.id, "object": kind, "created": asked.created, "model": asked.model}
        head = b"data: " + _encode(self._fields)[:-1] + b',"choices":['
        tail = b'],"usage":null}\n\n' if asked.include_usage else b"]}\n\n"
        self.listeners = [ChoiceStream(asked, choice, head, tail, self) for choice in asked.choices]

    def last_words(self) -> bytes:
        """The stages, for the event that ends the last choice, unless a usage event follows it."""
        if not self._asked.stages or self._open > 1 or self._asked.include_usage:
            return b""
        return b',"pdcluster":' + _encode(stage_report(self._jobs()))

    def fail(self, error: APIError) -> None:
        if not self._failed:
            self._failed = True
            self._sink.fail(error)

    def choice_done(self) -> None:
        self._open -= 1
        if self._open or self._failed:
            return
        if self._asked.include_usage:
            body: dict[str, Any] = {**self._fields, "choices": [], "usage": usage(self._asked, self._jobs())}
            if self._asked.stages:
                body["pdcluster"] = stage_report(self._jobs())
            self.write(b"data: " + _encode(body) + b"\n\n")
        self.write(DONE)
        self._sink.close()
