"""The answer in one JSON document, when the client did not ask for a stream."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.router.answer import Asked, stage_report, usage
from pdcluster_worker.router.errors import APIError
from pdcluster_worker.router.job import Job
from pdcluster_worker.router.logprob_format import Sampled, chat_logprobs, completion_logprobs
from pdcluster_worker.router.output import Output
from pdcluster_worker.router.sampling import Choice


class WholeChoice:
    """Listener of one choice: keeps everything until the end."""

    def __init__(self, asked: Asked, choice: Choice, done: Callable[[APIError | None], None]) -> None:
        self.choice = choice
        self.tokens: list[int] = []
        self.sampled: list[Sampled] = []
        self.reason = ""
        self._output = Output(asked.tokenizer, choice.sampling, asked.stop)
        self._pieces = [choice.text] if choice.text else []
        self._length = len(choice.text)
        self._done = done

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def token(self, token: int, logprob: TokenLogprob | None) -> bool:
        self.tokens.append(token)
        if logprob is not None:
            self.sampled.append(Sampled(token, logprob, self._length))
        self._add(self._output.push(token))
        return self._output.stopped

    def ended(self, reason: str, error: APIError | None) -> None:
        self._add(self._output.flush())
        self.reason = reason
        self._done(error)

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)


class WholeAnswer:
    """`result` ends with the document, or with the first choice's error."""

    def __init__(self, asked: Asked) -> None:
        self.result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked = asked
        self._open = len(asked.choices)
        self.listeners = [WholeChoice(asked, choice, self._choice_ended) for choice in asked.choices]

    def _choice_ended(self, error: APIError | None) -> None:
        self._open -= 1
        if self.result.done():
            return
        if error is not None:
            self.result.set_exception(error)
        elif not self._open:
            self.result.set_result(None)

    def document(self, jobs: Sequence[Job]) -> bytes:
        asked = self._asked
        body: dict[str, Any] = {
            "id": asked.id,
            "object": "chat.completion" if asked.chat else "text_completion",
            "created": asked.created,
            "model": asked.model,
            "choices": [_choice(asked, listener) for listener in self.listeners],
            "usage": usage(asked, jobs),
        }
        if asked.stages:
            body["pdcluster"] = stage_report(jobs)
        return msgspec.json.encode(body)


def _choice(asked: Asked, listener: WholeChoice) -> dict[str, Any]:
    wants_logprobs = listener.choice.sampling.logprobs >= 0
    choice: dict[str, Any] = {"index": listener.choice.index}
    if asked.chat:
        choice["message"] = {"role": "assistant", "content": listener.text, "refusal": None}
        choice["logprobs"] = chat_logprobs(asked.tokenizer, listener.sampled) if wants_logprobs else None
    else:
        choice["text"] = listener.text
        choice["logprobs"] = completion_logprobs(asked.tokenizer, listener.sampled) if wants_logprobs else None
    choice["finish_reason"] = listener.reason
    if asked.token_ids:
        choice["token_ids"] = listener.tokens
        choice["prompt_token_ids"] = list(listener.choice.prompt)
    return choice
