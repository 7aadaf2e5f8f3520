"""OpenTelemetry spans of requests, when an endpoint is set: made from measured times once a request has ended."""

import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from pdcluster_worker.router.job import Job
from pdcluster_worker.router.metrics import stage_seconds

EXPORT_SECONDS = 2
"""For one batch of spans, retries included: an end of the process waits no longer for the last one."""
_STAGES = ("queue", "reserve", "prefill", "transfer", "decode")


class Tracing:
    """Does nothing without an endpoint."""

    def __init__(self, endpoint: str, service: str) -> None:
        self._provider: TracerProvider | None = None
        if endpoint:
            self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
            exporter = OTLPSpanExporter(
                endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=EXPORT_SECONDS
            )
            self._provider.add_span_processor(BatchSpanProcessor(exporter))

    def record(self, jobs: Sequence[Job], path: str, request_id: str) -> None:
        """One span per choice, under the caller's span if it named one; a child per stage, laid end to end."""
        if self._provider is None:
            return
        tracer = self._provider.get_tracer("pdcluster.router")
        end = time.time_ns()
        for job in jobs:
            seconds = stage_seconds(job)
            start = end - int(seconds["total"] * 1e9)
            attributes: dict[str, str | int] = {
                "pdcluster.request_id": request_id,
                "pdcluster.resubmissions": job.life.resubmissions,
                "gen_ai.usage.input_tokens": job.prompt_tokens,
                "gen_ai.usage.output_tokens": len(job.life.tokens),
            }
            parent = extract({"traceparent": job.trace_parent}) if job.trace_parent else None
            span = tracer.start_span(path, context=parent, start_time=start, attributes=attributes)
            self._stages(tracer, span, seconds, start)
            span.end(end)

    @staticmethod
    def _stages(tracer: trace.Tracer, span: trace.Span, seconds: dict[str, float], start: int) -> None:
        context = trace.set_span_in_context(span)
        for name in _STAGES:
            stop = start + int(seconds[name] * 1e9)
            tracer.start_span(name, context=context, start_time=start).end(stop)
            start = stop

    def close(self) -> None:
        if self._provider is not None:
            self._provider.shutdown()
