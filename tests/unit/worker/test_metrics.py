"""Metrics of a worker by the names that dashboards use."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from pdcluster_worker.core.config import Snapshot
from pdcluster_worker.core.effects import FinishedNote, HandedOffNote, Observation, RouterOut
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import Stages
from pdcluster_worker.engine.metrics_server import MetricsServer
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.ipc.messages import FromExecutor, StepReport
from pdcluster_worker.metrics import WorkerMetrics

SNAPSHOT = Snapshot(
    requests_waiting=3,
    requests_running=2,
    queued_tokens=100,
    prefill_tokens_per_second=50.0,
    prefill_queue_seconds=2.0,
    blocks={"free": 4, "running": 3, "prefix": 2, "leased": 1, "quarantined": 0},
    leases={"live": 1, "quarantined": 0, "held": 0},
    kv_peers=2,
    draining=True,
    free_slots=6,
)


@pytest.fixture
def metrics() -> WorkerMetrics:
    return WorkerMetrics()


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_gauges_are_the_last_snapshot(metrics: WorkerMetrics) -> None:
    assert value(metrics, "pdc_requests_waiting") is None, "nothing is known before the first"
    metrics.snapshot(SNAPSHOT)
    assert value(metrics, "pdc_requests_waiting") == 3
    assert value(metrics, "pdc_requests_running") == 2
    assert value(metrics, "pdc_prefill_queue_seconds") == 2.0
    assert value(metrics, "pdc_kv_cache_usage_ratio") == 0.4
    assert value(metrics, "pdc_draining") == 1
    assert value(metrics, "pdc_leases", state="live") == 1
    assert sum(value(metrics, "pdc_blocks", holder=holder) or 0 for holder in SNAPSHOT.blocks) == 10


def test_observations_go_by_the_cores_names(metrics: WorkerMetrics) -> None:
    metrics.observe(
        [
            Observation("step_seconds", 0.5, ("decode",)),
            Observation("prepare_seconds", 0.25),
            Observation("reserve_seconds", 1.5, ("granted",)),
            Observation("reserve_attempts_total", 1.0, ("refused", "NO_CAPACITY")),
            Observation("kv_transfer_seconds", 0.125),
            Observation("kv_transfer_bytes_total", 4096.0),
            Observation("prefill_queue_seconds", 0.75),
        ]
    )
    assert value(metrics, "pdc_step_seconds_sum", phase="decode") == 0.5
    assert value(metrics, "pdc_prepare_seconds_sum") == 0.25
    assert value(metrics, "pdc_reserve_seconds_sum", outcome="granted") == 1.5
    assert value(metrics, "pdc_reserve_attempts_total", outcome="refused", reason="NO_CAPACITY") == 1
    assert value(metrics, "pdc_kv_transfer_seconds_sum") == 0.125
    assert value(metrics, "pdc_kv_transfer_bytes_total") == 4096
    assert value(metrics, "pdc_prefill_queue_wait_seconds_sum") == 0.75


def test_an_unknown_name_is_told_once_and_harms_nothing(
    metrics: WorkerMetrics, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics.observe([Observation("nonsense", 1.0), Observation("nonsense", 1.0), Observation("prepare_seconds", 1.0)])
    assert value(metrics, "pdc_prepare_seconds_count") == 1
    assert "".join(capsys.readouterr()).count("nonsense") == 1


def test_requests_tell_what_they_took_here(metrics: WorkerMetrics) -> None:
    stages = Stages(queue=0.5, prepare=0.25, reserve=0.25, prefill=1.0)
    metrics.said([RouterOut(handed_off=[HandedOffNote(1, PeerId("d"), stages)])])
    assert value(metrics, "pdc_time_to_first_token_seconds_sum") == 2.0
    decoded = FinishedNote(1, "stop", 5, None, Stages(queue=0.5, decode=2.0))
    metrics.said([RouterOut(finished=[decoded])])
    assert value(metrics, "pdc_time_to_first_token_seconds_count") == 1, "the first token came from elsewhere"
    assert value(metrics, "pdc_inter_token_seconds_sum") == 0.5
    assert value(metrics, "pdc_e2e_seconds_sum") == 2.5


def test_tokens_are_counted_once_for_all_ranks(metrics: WorkerMetrics) -> None:
    report = StepReport(1, [], [], {}, 0.1, prefill_tokens=10, decode_tokens=3)
    for rank in (0, 1):
        metrics.executor_said(FromExecutor(rank=rank, steps=(report,)))
    assert value(metrics, "pdc_tokens_total", kind="prefill") == 10
    assert value(metrics, "pdc_tokens_total", kind="decode") == 3


@pytest.fixture
def server(metrics: WorkerMetrics) -> Iterator[MetricsServer]:
    serving = MetricsServer("127.0.0.1", 0, metrics.registry)
    yield serving
    serving.close()


def get(server: MetricsServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=5) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_http(server: MetricsServer, metrics: WorkerMetrics) -> None:
    metrics.snapshot(SNAPSHOT)
    status, text = get(server, "/metrics")
    assert status == 200
    assert 'pdc_blocks{holder="free"} 4.0' in text
    assert get(server, "/health") == (200, '{"status": "alive"}')
    assert get(server, "/nothing")[0] == 404


def test_a_port_in_use_is_named(server: MetricsServer, metrics: WorkerMetrics) -> None:
    with pytest.raises(ConfigError, match=str(server.port)):
        MetricsServer("127.0.0.1", server.port, metrics.registry)
