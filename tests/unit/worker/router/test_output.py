"""Text from tokens: UTF-8 in pieces, end tokens, stop strings."""

import pytest

from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.router.output import Output


class Pieces:
    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)


def output(*pieces: bytes, stop: tuple[str, ...] = (), **sampling: object) -> Output:
    return Output(Pieces(*pieces), SamplingParams(**sampling), stop)  # type: ignore[arg-type]


def test_incomplete_characters_are_held_back() -> None:
    out = output(b"\xf0\x9f", b"\x98", b"\x80!")
    assert [out.push(token) for token in range(3)] == ["", "", "😀!"]
    assert out.flush() == ""


def test_bytes_that_never_become_a_character() -> None:
    out = output(b"a\xe2\x82", b"b", b"\xe2")
    assert [out.push(token) for token in (0, 1, 2)] == ["a", "\ufffdb", ""]
    assert out.flush() == "\ufffd"


def test_ids_that_the_tokenizer_lacks_are_nothing() -> None:
    out = output(b"a")
    assert [out.push(token) for token in (0, 7, 10**6)] == ["a", "", ""]
    assert out.count == 3


def test_end_tokens_are_not_shown() -> None:
    assert output(b"a", b"</s>", stop_token_ids=(1,)).push(1) == ""
    assert output(b"a", b"</s>").push(1) == "</s>"
    assert output(b"a", b"</s>", stop_token_ids=(1,), min_tokens=5).push(1) == "</s>"


def test_stop_strings_across_tokens() -> None:
    out = output(b"one", b" ST", b"OP more", stop=("STOP",))
    assert [out.push(token) for token in range(3)] == ["one", " ", ""]
    assert out.stopped
    assert out.flush() == ""


def test_held_text_comes_at_the_end() -> None:
    out = output(b"one", b" ST", stop=("STOP",))
    assert [out.push(token) for token in range(2)] == ["one", " "]
    assert not out.stopped
    assert out.flush() == "ST"


def test_a_character_held_at_the_end_may_complete_nothing() -> None:
    out = output(b"S", b"\xe2", stop=("STOP",))
    assert [out.push(token) for token in range(2)] == ["", ""]
    assert out.flush() == "S\ufffd"


@pytest.mark.parametrize(("min_tokens", "stopped"), [(1, True), (2, False)])
def test_stop_strings_wait_for_min_tokens(min_tokens: int, stopped: bool) -> None:
    out = output(b"STOP", b"STOP", stop=("STOP",), min_tokens=min_tokens)
    assert out.push(0) == "STOP"
    out.push(1)
    assert out.stopped is stopped
