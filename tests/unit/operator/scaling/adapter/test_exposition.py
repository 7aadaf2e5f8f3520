"""Parsing what a worker tells: the gauges, and only they."""

import pytest

from pdcluster_operator.scaling.adapter.exposition import ExpositionError, gauges

TOLD = """# HELP pdc_requests_waiting Requests without a slot
# TYPE pdc_requests_waiting gauge
pdc_requests_waiting 3.0
pdc_requests_waiting_total 99
pdc_prefill_queue_seconds 1.25
pdc_prefill_queue_wait_seconds_sum 400
pdc_kv_cache_usage_ratio 2.5e-01
pdc_blocks{holder="free"} 12
something broken here is not looked at {{{
"""


def test_only_the_gauges_that_can_be_asked_for_are_taken() -> None:
    assert gauges(TOLD.splitlines()) == {
        "pdc_requests_waiting": 3.0,
        "pdc_prefill_queue_seconds": 1.25,
        "pdc_kv_cache_usage_ratio": 0.25,
    }


def test_nothing_told_is_nothing_found() -> None:
    assert gauges([]) == {}


@pytest.mark.parametrize("value", ["NaN", "+Inf", "many", ""])
def test_what_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ExpositionError):
        gauges([f"pdc_requests_running {value}"])
