"""What the adapter counts about itself, for Prometheus. One registry per process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class AdapterMetrics:
    """Every instrument by name."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._questions = Counter(
            "pdc_adapter_questions", "questions for a metric", ["metric", "code"], registry=self.registry
        )
        self._scrapes = Counter("pdc_adapter_scrapes", "attempts to read a worker", ["outcome"], registry=self.registry)
        self._seconds = Histogram("pdc_adapter_scrape_seconds", "one attempt to read a worker", registry=self.registry)
        self.workers = Gauge("pdc_adapter_workers", "workers that are known", registry=self.registry)
        self.certificate_ends = Gauge(
            "pdc_adapter_certificate_end_seconds",
            "Unix time at which the served certificate ends",
            registry=self.registry,
        )

    def asked(self, metric: str, code: int) -> None:
        """`metric`: a name that exists, or `unknown`."""
        self._questions.labels(metric, str(code)).inc()

    def scraped(self, outcome: str, seconds: float) -> None:
        self._scrapes.labels(outcome).inc()
        self._seconds.observe(seconds)
