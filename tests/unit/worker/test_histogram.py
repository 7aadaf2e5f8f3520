"""The fast histogram tells a scraper what prometheus_client's would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from pdcluster_worker.histogram import FastHistogram

BOUNDS = (0.1, 0.5, 1, 10)


def lines(registry: CollectorRegistry) -> list[str]:
    """Without the time of creation, which only the library's has."""
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 20) | st.sampled_from(BOUNDS)), min_size=1))
def test_the_same_text_as_the_library(samples: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    fast = FastHistogram("x_seconds", "X", ["kind"], BOUNDS)
    ours.register(fast)
    slow = Histogram("x_seconds", "X", ["kind"], registry=theirs, buckets=BOUNDS)
    for kind, value in samples:
        fast.labels(kind).observe(value)
        slow.labels(kind).observe(value)
    assert lines(ours) == lines(theirs)


def test_without_labels_it_is_there_before_the_first_sample() -> None:
    registry = CollectorRegistry()
    registry.register(FastHistogram("x_seconds", "X", [], BOUNDS))
    assert 'x_seconds_bucket{le="+Inf"} 0.0' in lines(registry)


def test_label_values_are_counted() -> None:
    with pytest.raises(ValueError, match="2 label values for 1 names"):
        FastHistogram("x_seconds", "X", ["kind"], BOUNDS).labels("a", "b")
