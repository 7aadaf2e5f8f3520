"""Shapes of log-probabilities."""

from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.router.logprob_format import Sampled, chat_logprobs, completion_logprobs, token_text


class Names:
    """`name` of a tokenizer."""

    def __init__(self, *names: bytes) -> None:
        self._names = names

    def name(self, token: int) -> bytes:
        return self._names[token] if token < len(self._names) else b""


NAMES = Names(b"a", b"\xc3", "é".encode(), b"<s>")
SAMPLED = [
    Sampled(0, TokenLogprob(-0.25, (0, 2), (-0.25, -1.5)), 0),
    Sampled(1, TokenLogprob(float("-inf"), (2,), (-0.1,)), 1),
]


def test_names_of_tokens() -> None:
    assert [token_text(NAMES, token) for token in (0, 1, 2, 3, 9)] == ["a", "bytes:\\xc3", "é", "<s>", "token_id:9"]


def test_completions() -> None:
    found = completion_logprobs(NAMES, SAMPLED)
    assert found.tokens == ["a", "bytes:\\xc3"]
    assert found.token_logprobs == [-0.25, -9999.0]
    assert found.text_offset == [0, 1]
    assert found.top_logprobs == [{"a": -0.25, "é": -1.5}, {"é": -0.1, "bytes:\\xc3": -9999.0}]


def test_chat() -> None:
    first, second = chat_logprobs(NAMES, SAMPLED).content
    assert (first.token, first.bytes) == ("a", [97])
    assert [(top.token, top.logprob, top.bytes) for top in first.top_logprobs] == [
        ("a", -0.25, [97]),
        ("é", -1.5, [0xC3, 0xA9]),
    ]
    assert (second.bytes, second.logprob) == ([0xC3], -9999.0)
