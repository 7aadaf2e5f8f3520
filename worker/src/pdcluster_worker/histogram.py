"""Histograms for a thread that takes thousands of samples a second: a sample costs a bisection and no lock.

One thread writes; scrapes read beside it and may miss the sample that is being written.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Series:
    """The samples of one set of label values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """A bucket holds what is at most its bound."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class FastHistogram(Collector):
    """`bounds` ascend. Without label names its one series exists from the start."""

    def __init__(self, name: str, text: str, label_names: Sequence[str], bounds: Sequence[float]) -> None:
        self._name = name
        self._text = text
        self._label_names = tuple(label_names)
        self._bounds = tuple(bounds)
        self._series: dict[tuple[str, ...], Series] = {}
        if not self._label_names:
            self.labels()

    def labels(self, *values: str) -> Series:
        if len(values) != len(self._label_names):
            raise ValueError(f"{self._name}: {len(values)} label values for {len(self._label_names)} names")
        series = self._series.get(values)
        if series is None:
            series = self._series[values] = Series(self._bounds)
        return series

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._label_names)
        for values, series in list(self._series.items()):
            family.add_metric(values, self._buckets(series), series.total)
        yield family

    def _buckets(self, series: Series) -> list[tuple[str, float]]:
        """Cumulative, as the format wants them."""
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*self._bounds, float("inf")), list(series.counts), strict=True):
            below += count
            buckets.append((floatToGoString(bound), float(below)))  # type: ignore[no-untyped-call]
        return buckets
