"""Stop strings across pieces: never a character too much, never one too few."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdcluster_worker.router.stop_strings import StopStrings


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher, shown = StopStrings(stops), ""
    for piece in pieces:
        text, stopped = matcher.push(piece)
        shown += text
        if stopped:
            return shown, True
    return shown + matcher.flush(), False


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "stopped"),
    [
        ([], ["any", "thing"], "anything", False),
        (["END"], ["before E", "N", "D after"], "before ", True),
        (["END"], ["an EN", "E"], "an ENE", False),
        (["aab"], ["aa", "ab"], "a", True),
        (["\n\n"], ["one\n", "two\n", "\nthree"], "one\ntwo", True),
        (["xyz", "y"], ["wx", "yz"], "w", True),
        (["b", "abc"], ["a", "b"], "a", True),
        (["END"], ["END"], "", True),
        (["END"], ["E"], "E", False),
    ],
)
def test_cases(stops: list[str], pieces: list[str], shown: str, stopped: bool) -> None:
    assert run(stops, pieces) == (shown, stopped)


def test_text_is_held_back_only_while_it_may_begin_a_stop_string() -> None:
    matcher = StopStrings(["STOP"])
    assert matcher.push("go ST") == ("go ", False)
    assert matcher.push("A") == ("STA", False)


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4), st.lists(st.text("abc", max_size=5)))
def test_cutting_the_text_differently_changes_nothing(stops: list[str], pieces: list[str]) -> None:
    """Character by character, the text ends where the first complete stop string begins."""
    text = "".join(pieces)
    assert run(stops, list(text)) == reference(stops, text)
    shown, stopped = run(stops, pieces)
    assert stopped is reference(stops, text)[1]
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)


def reference(stops: list[str], text: str) -> tuple[str, bool]:
    for length in range(len(text) + 1):
        begins = [length - len(stop) for stop in stops if text[:length].endswith(stop)]
        if begins:
            return text[: min(begins)], True
    return text, False
