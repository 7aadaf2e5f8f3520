"""Metrics of a worker, all named `pdc_*`. Counters and histograms are written as things happen; gauges are the core's
last snapshot, read when somebody scrapes.
"""

from collections.abc import Callable, Iterable

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pdcluster_worker.core.config import Snapshot
from pdcluster_worker.core.effects import Observation, RouterOut
from pdcluster_worker.core.wire import Stages
from pdcluster_worker.histogram import FastHistogram
from pdcluster_worker.ipc.messages import FromExecutor

log = structlog.get_logger(__name__)

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class WorkerMetrics:
    """One per process, with a registry of its own. The engine thread observes; counters are for every thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.protocol_errors = self._counter(
            "protocol_errors", "Messages that broke the wire's rules or limits", "peer_kind", "reason"
        )
        self.links_lost = self._counter("links_lost", "Links to peers that ended", "peer_kind", "reason")
        self.tokens = self._counter("tokens", "Tokens computed by steps", "kind")
        self.tokens.labels("prefill")
        self.tokens.labels("decode")
        self.prepare_threads = Gauge("pdc_prepare_threads", "Threads of the prepare pool", registry=self.registry)
        self._histograms: dict[str, FastHistogram] = {
            name: self._histogram(metric, text, *labels) for name, metric, text, labels in HISTOGRAMS
        }
        self._counters: dict[str, Counter] = {
            name: self._counter(name.removesuffix("_total"), text, *labels) for name, text, labels in COUNTERS
        }
        self._time_to_first_token = self._histograms["time_to_first_token"].labels()
        self._inter_token = self._histograms["inter_token"].labels()
        self._end_to_end = self._histograms["e2e"].labels()
        self._writers: dict[tuple[str, tuple[str, ...]], Callable[[float], None]] = {}
        """What takes a sample of this name and these label values."""
        self._gauges = SnapshotCollector()
        self.registry.register(self._gauges)

    def observe(self, observations: Iterable[Observation]) -> None:
        """What the core measured, by name without the prefix."""
        for observation in observations:
            write = self._writers.get((observation.name, observation.labels))
            if write is None:
                write = self._writer(observation.name, observation.labels)
            write(observation.value)

    def executor_said(self, message: FromExecutor) -> None:
        if message.rank == 0:
            for step in message.steps:
                self.tokens.labels("prefill").inc(step.prefill_tokens)
                self.tokens.labels("decode").inc(step.decode_tokens)

    def said(self, routers: Iterable[RouterOut]) -> None:
        """What requests that ended here, or were handed over, took."""
        for out in routers:
            for handed in out.handed_off:
                self._time_to_first_token.observe(_until_first_token(handed.stages))
            for finished in out.finished:
                stages = finished.stages
                if stages.prefill:
                    self._time_to_first_token.observe(_until_first_token(stages))
                if finished.output_tokens > 1:
                    self._inter_token.observe(stages.decode / (finished.output_tokens - 1))
                self._end_to_end.observe(_until_first_token(stages) + stages.decode)

    def snapshot(self, snapshot: Snapshot) -> None:
        self._gauges.snapshot = snapshot

    def protocol_error(self, peer_kind: str, reason: str) -> None:
        self.protocol_errors.labels(peer_kind, reason).inc()

    def link_lost(self, peer_kind: str, reason: str) -> None:
        self.links_lost.labels(peer_kind, reason).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"pdc_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> FastHistogram:
        histogram = FastHistogram(f"pdc_{name}", text, labels, SECONDS)
        self.registry.register(histogram)
        return histogram

    def _writer(self, name: str, labels: tuple[str, ...]) -> Callable[[float], None]:
        write: Callable[[float], None]
        if name in self._histograms:
            write = self._histograms[name].labels(*labels).observe
        elif name in self._counters:
            counter = self._counters[name]
            write = (counter.labels(*labels) if labels else counter).inc
        else:
            log.warning("unknown_metric", metric=name)
            write = _forget
        self._writers[name, labels] = write
        return write


HISTOGRAMS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("prepare_seconds", "prepare_seconds", "Validating and hashing one request", ()),
    ("reserve_seconds", "reserve_seconds", "From entering the queue to a lease, or to giving up", ("outcome",)),
    ("kv_transfer_seconds", "kv_transfer_seconds", "One request's writes into a decode worker", ()),
    ("step_seconds", "step_seconds", "One step of the executor", ("phase",)),
    ("prefill_queue_seconds", "prefill_queue_wait_seconds", "From being ready to run to the first step", ()),
    ("time_to_first_token", "time_to_first_token_seconds", "From Submit to the first token, on this worker", ()),
    ("inter_token", "inter_token_seconds", "Mean time between tokens of one request, on this worker", ()),
    ("e2e", "e2e_seconds", "From Submit, or Commit, to the end, on this worker", ()),
)
"""(the core's name for it, metric, help, labels); the gauge pdc_prefill_queue_seconds is another thing."""

COUNTERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("reserve_attempts_total", "Reservations asked of decode workers", ("outcome", "reason")),
    ("preemptions_total", "Requests that lost their blocks to others and are computed again", ()),
    ("kv_transfer_bytes_total", "Bytes of KV written into decode workers", ()),
)


def _forget(value: float) -> None:
    """A sample that nobody asked for."""


def _until_first_token(stages: Stages) -> float:
    return stages.prepare + stages.reserve + stages.queue + stages.prefill


class SnapshotCollector(Collector):
    """Gauges of the last snapshot; nothing before the first."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None

    def collect(self) -> Iterable[Metric]:
        snapshot = self.snapshot
        if snapshot is None:
            return
        for name, text, value in (
            ("prefill_queue_seconds", "Queued prefill work at the measured rate", snapshot.prefill_queue_seconds),
            ("requests_waiting", "Requests without a slot", snapshot.requests_waiting),
            ("requests_running", "Requests with a slot", snapshot.requests_running),
            ("kv_cache_usage_ratio", "Share of KV blocks neither free nor evictable", snapshot.kv_usage),
            ("queued_tokens", "Uncached prompt tokens waiting", snapshot.queued_tokens),
            ("prefill_tokens_per_second", "Measured prefill rate", snapshot.prefill_tokens_per_second),
            ("kv_peers", "Peers of the other role to which KV can move now", snapshot.kv_peers),
            ("draining", "1 while the worker takes nothing new", snapshot.draining),
        ):
            yield GaugeMetricFamily(f"pdc_{name}", text, value=float(value))
        for name, text, label, counts in (
            ("blocks", "KV blocks by holder; they add up to the pool", "holder", snapshot.blocks),
            ("leases", "Leases by state", "state", snapshot.leases),
        ):
            family = GaugeMetricFamily(f"pdc_{name}", text, labels=[label])
            for key, count in counts.items():
                family.add_metric([key], count)
            yield family
