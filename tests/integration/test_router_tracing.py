"""Spans of requests reach an OTLP collector, under the caller's span, with one child per stage."""

import queue
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from router_harness import RouterHarness

from pdcluster_worker.core.wire import Role

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: queue.SimpleQueue[object] = queue.SimpleQueue()

    def Export(self, request: object, context: object) -> object:  # noqa: N802
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans() -> None:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with RouterHarness(Role.PREFILL, Role.DECODE, trace_endpoint=f"http://127.0.0.1:{port}") as h:
            with h.client() as client:
                body = {"model": "fake", "prompt": "abc", "max_tokens": 3}
                assert client.post("/v1/completions", json=body, headers={"traceparent": PARENT}).status_code == 200
            (submitted,) = h.named(Role.PREFILL)[0].submitted
            assert submitted.trace_parent == PARENT
        spans = [collector.spans.get(timeout=5) for _ in range(6)]
    finally:
        server.stop(None).wait()
    root = next(span for span in spans if span.name == "/v1/completions")
    assert root.trace_id.hex() == PARENT.split("-")[1]
    assert root.parent_span_id.hex() == PARENT.split("-")[2]
    children = {span.name for span in spans if span.parent_span_id == root.span_id}
    assert children == {"queue", "reserve", "prefill", "transfer", "decode"}


def test_without_a_collector_nothing_is_held_up() -> None:
    with RouterHarness(Role.MIXED, trace_endpoint="http://127.0.0.1:1") as h, h.client() as client:
        body = {"model": "fake", "prompt": "abc", "max_tokens": 3}
        assert client.post("/v1/completions", json=body).status_code == 200
