"""What a worker tells, from Prometheus' text form: the few gauges that can be asked for, and nothing else. Pure."""

import math
from collections.abc import Iterable, Mapping

from prometheus_client.parser import text_string_to_metric_families

from pdcluster_operator.errors import OperatorError

GAUGES = (
    "pdc_prefill_queue_seconds",
    "pdc_requests_waiting",
    "pdc_requests_running",
    "pdc_kv_cache_usage_ratio",
    "pdc_queued_tokens",
)
"""Without labels, and in units that add up over the workers of a role."""

_STARTS = tuple(f"{name}{after}" for name in GAUGES for after in (" ", "{"))


class ExpositionError(OperatorError):
    """A worker told something that is no finite number."""


def gauges(lines: Iterable[str]) -> Mapping[str, float]:
    """The gauges among the lines; one that the worker does not tell is absent. Raises ExpositionError."""
    wanted = "\n".join(line for line in lines if line.startswith(_STARTS))
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(f"{wanted}\n"):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except ValueError as error:
        raise ExpositionError(f"unreadable metrics: {error}") from error
    for name, value in found.items():
        if not math.isfinite(value):
            raise ExpositionError(f"{name} is {value}")
    return found
