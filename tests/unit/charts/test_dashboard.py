"""The dashboard asks for series that the product has, of the processes that have them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from pdcluster_operator.metrics import Metrics
from pdcluster_worker.core.config import Snapshot
from pdcluster_worker.metrics import WorkerMetrics
from pdcluster_worker.router.metrics import RouterMetrics

DASHBOARD = Path(__file__).resolve().parents[3] / "charts" / "pdcluster" / "dashboards" / "pdcluster.json"
SERIES = re.compile(r"\b(pdc_[a-z0-9_]+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
WORKERS = re.compile(r'role=~"[a-z|]*(prefill|decode|mixed)')


def names(registry: CollectorRegistry) -> set[str]:
    """Every series that a process can have, whatever it has counted yet."""
    return {family.name + suffix for family in registry.collect() for suffix in SUFFIXES[family.type]}


def of_workers() -> set[str]:
    metrics = WorkerMetrics()
    metrics.snapshot(Snapshot(0, 0, 0, 0.0, 0.0, {"free": 1, "prefix": 0}, {"live": 0}, 0, False, 0))
    return names(metrics.registry)


def queries() -> Iterator[tuple[str, str]]:
    """Title and query of everything that is drawn."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def test_every_series_is_told_by_the_process_that_is_asked() -> None:
    router, worker, operator = names(RouterMetrics().registry), of_workers(), names(Metrics().registry)
    for title, query in queries():
        known = router if 'role="router"' in query else worker if WORKERS.search(query) else operator
        asked = set(SERIES.findall(query))
        assert asked, title
        assert asked <= known, title


def test_panels_do_not_lie_on_each_other() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (place["x"] + column, place["y"] + line)
        for place in places
        for column in range(place["w"])
        for line in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
