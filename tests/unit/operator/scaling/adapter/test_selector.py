"""Label selectors: what autoscalers send is understood, anything else is refused by name."""

import pytest

from pdcluster_operator.scaling.adapter.selector import SelectorError, Wanted, parse

DEMO = Wanted(frozenset({"demo"}), frozenset({"decode"}))


@pytest.mark.parametrize(
    "text",
    [
        "cluster=demo,role=decode",
        "role=decode,cluster=demo",
        "cluster==demo, role = decode",
        "cluster in (demo),role in (decode)",
        "cluster in (demo,other),cluster=demo,role=decode",
    ],
)
def test_equality_and_sets_are_understood(text: str) -> None:
    assert parse(text) == DEMO


def test_a_set_asks_for_several() -> None:
    assert parse("cluster=demo,role in (prefill, decode)").roles == {"prefill", "decode"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names no cluster"),
        ("cluster=demo", "names no role"),
        ("role=decode", "names no cluster"),
        ("cluster=,role=decode", "names no cluster"),
        ("cluster=a,cluster=b,role=decode", "names no cluster"),
        ("cluster=demo,role=decode,pod=x", "label 'pod'"),
        ("cluster!=demo,role=decode", "'cluster!=demo' is not understood"),
        ("cluster notin (demo),role=decode", "is not understood"),
        ("cluster,role=decode", "'cluster' is not understood"),
        ("!cluster,role=decode", "'!cluster' is not understood"),
        ("cluster in demo,role=decode", "is not understood"),
    ],
)
def test_anything_else_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SelectorError, match=problem):
        parse(text)
