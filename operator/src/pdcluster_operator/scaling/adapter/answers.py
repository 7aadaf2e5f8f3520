"""Sums and refusals, in the words of the Kubernetes API. Pure.

A worker whose reading is too old, or lacks the gauge, makes the whole sum an error: a smaller sum would look like less
load, and take away pods while there is most to do.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from http import HTTPStatus
from typing import Any

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.scaling.adapter.exposition import GAUGES
from pdcluster_operator.scaling.adapter.workers import Group, Worker

Manifest = dict[str, Any]

GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
OLDEST_SECONDS = 15.0
"""A reading older than that counts as none."""
NAMED = 5
"""So many workers are named in a refusal; of the others, how many they are."""

_REASONS = {
    HTTPStatus.BAD_REQUEST: "BadRequest",
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.NOT_FOUND: "NotFound",
    HTTPStatus.METHOD_NOT_ALLOWED: "MethodNotAllowed",
    HTTPStatus.SERVICE_UNAVAILABLE: "ServiceUnavailable",
}


class RefusedError(OperatorError):
    """A question gets no number: why, and the status to answer with."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Reading:
    """A worker's gauges, and when they were read: monotonic seconds."""

    values: Mapping[str, float]
    at: float


@dataclass(frozen=True, slots=True)
class Total:
    """A sum and the age of the oldest reading in it."""

    group: Group
    value: float
    age: float


def total(metric: str, group: Group, workers: Sequence[Worker], readings: Mapping[str, Reading], now: float) -> Total:
    """The sum over workers that all serve. Raises RefusedError when there are none, or one of them is unread."""
    if not workers:
        raise _unavailable(f"no {group.role} worker of {group.namespace}/{group.cluster} is ready")
    fresh = {
        worker.name: reading
        for worker in workers
        if (reading := readings.get(worker.uid)) and now - reading.at <= OLDEST_SECONDS
    }
    if unread := sorted(worker.name for worker in workers if worker.name not in fresh):
        raise _unavailable(f"not read for {OLDEST_SECONDS:.0f} s: {_listed(unread)}")
    if silent := sorted(name for name, reading in fresh.items() if metric not in reading.values):
        raise _unavailable(f"{metric} is not told by {_listed(silent)}")
    value = sum(reading.values[metric] for reading in fresh.values())
    return Total(group, value, now - min(reading.at for reading in fresh.values()))


def value_list(metric: str, totals: Iterable[Total], now: datetime) -> Manifest:
    """An ExternalMetricValueList."""
    return {
        "kind": "ExternalMetricValueList",
        "apiVersion": VERSION,
        "metadata": {},
        "items": [
            {
                "metricName": metric,
                "metricLabels": {"cluster": entry.group.cluster, "role": entry.group.role},
                "timestamp": _stamp(now.timestamp() - entry.age),
                "value": quantity(entry.value),
            }
            for entry in totals
        ],
    }


def quantity(value: float) -> str:
    """As a Kubernetes quantity, to the thousandth."""
    thousandths = int((Decimal(repr(value)) * 1000).to_integral_value(ROUND_HALF_UP))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def failure(status: int, message: str) -> Manifest:
    """A Status object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(HTTPStatus(status), "InternalError"),
        "code": status,
    }


def resource_list() -> Manifest:
    """What discovery tells of this version: every gauge, each of a namespace."""
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": VERSION,
        "resources": [
            {"name": name, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
            for name in GAUGES
        ],
    }


def api_group() -> Manifest:
    """What discovery tells of the group."""
    version = {"groupVersion": VERSION, "version": "v1beta1"}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    }


def _unavailable(message: str) -> RefusedError:
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, message)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
