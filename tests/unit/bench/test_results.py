"""The page of results says every figure, and whether its target is met."""

from typing import Any

from results import flat, page

MACHINE = {"cpu": "C", "cores": 2, "simd": "AVX2", "memory_bytes": 2**34, "kernel": "6", "python": "3.11"}


def result(**figures: Any) -> dict[str, Any]:
    targets = {"a.rate": {"at_least": 4500}, "failed": {"at_most": 0}}
    met = {"a.rate": False, "failed": True}
    return {
        "bench": "b",
        "machine": MACHINE,
        "figures": figures,
        "targets": targets,
        "met": met,
        "took_seconds": 7,
    }


def test_figures_are_named_by_their_path() -> None:
    assert list(flat({"a": {"b": 1, "c": {"d": 2.5}}, "e": None})) == [("a.b", 1), ("a.c.d", 2.5), ("e", None)]


def test_the_page_tells_what_is_not_met() -> None:
    text = page([result(a={"rate": 4321.5}, failed=0)])
    assert "| b | a.rate | 4,322 | at least 4,500 | **not met** |" in text
    assert "| b | failed | 0 | at most 0 | met |" in text
    assert "C, 2 cores with AVX2, 16 GiB" in text
