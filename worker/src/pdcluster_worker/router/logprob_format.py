"""Log-probabilities in the shapes of the two APIs. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.models.tokenizer import Tokenizer

_LOWEST = -9999.0
"""Stands for minus infinity, which JSON lacks."""


class Alternative(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class ChatLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Alternative]


class ChatLogprobs(msgspec.Struct, frozen=True):
    content: list[ChatLogprob]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True):
    """Parallel lists, one entry per token; `text_offset` in characters of the choice's text."""

    text_offset: list[int]
    token_logprobs: list[float]
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class Sampled(NamedTuple):
    """A token, its logprob, and where the text stood before it."""

    token: int
    logprob: TokenLogprob
    offset: int


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """For people: bytes that are no text on their own, and ids that the tokenizer lacks, are spelled out."""
    raw = tokenizer.name(token)
    if not raw:
        return f"token_id:{token}"
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def chat_logprobs(tokenizer: Tokenizer, sampled: Sequence[Sampled]) -> ChatLogprobs:
    return ChatLogprobs([_chat_logprob(tokenizer, each.token, each.logprob) for each in sampled])


def completion_logprobs(tokenizer: Tokenizer, sampled: Sequence[Sampled]) -> CompletionLogprobs:
    return CompletionLogprobs(
        text_offset=[each.offset for each in sampled],
        token_logprobs=[max(_LOWEST, each.logprob.logprob) for each in sampled],
        tokens=[token_text(tokenizer, each.token) for each in sampled],
        top_logprobs=[_top(tokenizer, each.token, each.logprob) for each in sampled],
    )


def _chat_logprob(tokenizer: Tokenizer, token: int, logprob: TokenLogprob) -> ChatLogprob:
    tops = [
        Alternative(token_text(tokenizer, other), max(_LOWEST, value), list(tokenizer.name(other)))
        for other, value in zip(logprob.top_tokens, logprob.top_logprobs, strict=False)
    ]
    text, raw = token_text(tokenizer, token), list(tokenizer.name(token))
    return ChatLogprob(text, max(_LOWEST, logprob.logprob), raw, tops)


def _top(tokenizer: Tokenizer, token: int, logprob: TokenLogprob) -> dict[str, float]:
    """The alternatives, and the sampled token even when it is not among them."""
    pairs = zip(logprob.top_tokens, logprob.top_logprobs, strict=False)
    found = {token_text(tokenizer, other): max(_LOWEST, value) for other, value in pairs}
    return found | {token_text(tokenizer, token): max(_LOWEST, logprob.logprob)}
