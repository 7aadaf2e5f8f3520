"""Sums, and what makes one impossible."""

from datetime import UTC, datetime

import pytest

from pdcluster_operator.scaling.adapter.answers import (
    Reading,
    RefusedError,
    Total,
    failure,
    quantity,
    resource_list,
    total,
    value_list,
)
from pdcluster_operator.scaling.adapter.exposition import GAUGES
from pdcluster_operator.scaling.adapter.workers import Group, Worker

GROUP = Group("team", "demo", "decode")
USAGE = "pdc_kv_cache_usage_ratio"


def worker(number: int) -> Worker:
    return Worker(f"uid-{number}", f"demo-decode-{number}", GROUP, "10.0.0.1", 8000, True)


def reading(value: float, at: float = 100.0) -> Reading:
    return Reading({USAGE: value}, at)


def test_a_sum_is_as_old_as_its_oldest_reading() -> None:
    readings = {"uid-0": reading(0.5, at=90.0), "uid-1": reading(0.75, at=98.0), "uid-9": reading(100.0)}
    assert total(USAGE, GROUP, [worker(0), worker(1)], readings, now=100.0) == Total(GROUP, 1.25, 10.0)


def test_a_worker_unread_for_15_seconds_is_an_error_and_not_a_smaller_sum() -> None:
    readings = {"uid-0": reading(0.5), "uid-1": reading(0.5, at=85.0)}
    assert total(USAGE, GROUP, [worker(0), worker(1)], readings, now=100.0).value == 1.0
    with pytest.raises(RefusedError, match="demo-decode-1") as refused:
        total(USAGE, GROUP, [worker(0), worker(1)], readings, now=100.5)
    assert refused.value.status == 503


def test_a_worker_that_was_never_read_is_an_error() -> None:
    with pytest.raises(RefusedError, match="not read for 15 s: demo-decode-0"):
        total(USAGE, GROUP, [worker(0)], {}, now=0.0)


def test_a_worker_that_does_not_tell_the_gauge_is_an_error() -> None:
    with pytest.raises(RefusedError, match="is not told by demo-decode-0"):
        total("pdc_requests_running", GROUP, [worker(0)], {"uid-0": reading(1.0)}, now=100.0)


def test_no_ready_worker_is_an_error_and_not_zero() -> None:
    with pytest.raises(RefusedError, match="no decode worker of team/demo is ready"):
        total(USAGE, GROUP, [], {}, now=0.0)


def test_a_refusal_names_a_few() -> None:
    with pytest.raises(RefusedError, match="demo-decode-4 and 3 more"):
        total(USAGE, GROUP, [worker(number) for number in range(8)], {}, now=0.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.0, "3"), (0.1 + 0.2, "300m"), (1.5, "1500m"), (0.0004, "0"), (0.0005, "1m"), (1e6, "1000000")],
)
def test_quantities_are_to_the_thousandth(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_value_says_whose_it_is_and_when_it_was_read() -> None:
    now = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
    found = value_list(USAGE, [Total(GROUP, 1.25, age=4.0)], now)
    assert (found["kind"], found["apiVersion"]) == ("ExternalMetricValueList", "external.metrics.k8s.io/v1beta1")
    assert found["items"] == [
        {
            "metricName": USAGE,
            "metricLabels": {"cluster": "demo", "role": "decode"},
            "timestamp": "2026-01-01T00:00:06Z",
            "value": "1250m",
        }
    ]


def test_a_failure_is_a_status_object() -> None:
    found = failure(503, "not read")
    assert (found["kind"], found["status"], found["reason"], found["code"]) == (
        "Status",
        "Failure",
        "ServiceUnavailable",
        503,
    )


def test_discovery_tells_every_gauge() -> None:
    resources = resource_list()["resources"]
    assert [entry["name"] for entry in resources] == list(GAUGES)
    assert all(entry["namespaced"] for entry in resources)
