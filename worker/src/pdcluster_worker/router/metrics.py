"""The router's metrics, in a registry of their own. Names: ARCHITECTURE.md; prefix pdc_."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from pdcluster_worker.router.job import Job

_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 5)


class RouterMetrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "pdc_requests_total", "HTTP requests, by path and status", ["path", "status"], registry=registry
        )
        self.waiting = Gauge("pdc_requests_waiting", "Choices without a first token", registry=registry)
        self.running = Gauge("pdc_requests_running", "Choices between first and last token", registry=registry)
        self.resubmissions = Counter(
            "pdc_resubmissions_total", "Requests submitted again, by reason", ["reason"], registry=registry
        )
        self.tokens = Counter("pdc_tokens_total", "Tokens: prompt, cached, output", ["kind"], registry=registry)
        self.first_token = Histogram(
            "pdc_time_to_first_token_seconds", "From request to first token", buckets=_LATENCY, registry=registry
        )
        self.inter_token = Histogram(
            "pdc_inter_token_seconds", "Between tokens of a choice", buckets=_TOKEN, registry=registry
        )
        self.end_to_end = Histogram(
            "pdc_e2e_seconds", "From request to last token", buckets=_LATENCY, registry=registry
        )
        self.stages = Histogram(
            "pdc_stage_seconds", "One stage of a choice", ["stage"], buckets=_LATENCY, registry=registry
        )
        self.workers = Gauge("pdc_router_workers", "Connected workers, by role", ["role"], registry=registry)
        self.dropped_clients = Counter("pdc_dropped_clients_total", "Clients too far behind", registry=registry)

    def ended(self, job: Job) -> None:
        """Counts a choice that has ended, in whatever way."""
        times, life = job.times, job.life
        self.tokens.labels("prompt").inc(job.prompt_tokens)
        self.tokens.labels("cached").inc(life.stages.cached_tokens)
        self.tokens.labels("output").inc(len(life.tokens))
        if not times.first_token:
            return
        self.first_token.observe(times.first_token - times.received)
        self.end_to_end.observe(times.ended - times.received)
        for stage, seconds in stage_seconds(job).items():
            self.stages.labels(stage).observe(seconds)

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


def stage_seconds(job: Job) -> dict[str, float]:
    """Queue, reserve, prefill and transfer as the workers measured them; first token, decode and total as seen here."""
    times, stages = job.times, job.life.stages
    waited = max(0.0, times.submitted - times.received) if times.submitted else 0.0
    return {
        "queue": waited + stages.queue + stages.prepare,
        "reserve": stages.reserve,
        "prefill": stages.prefill,
        "transfer": stages.transfer,
        "first_token": max(0.0, times.first_token - times.received) if times.first_token else 0.0,
        "decode": max(0.0, times.last_token - times.first_token) if times.first_token else 0.0,
        "total": max(0.0, times.ended - times.received),
    }
