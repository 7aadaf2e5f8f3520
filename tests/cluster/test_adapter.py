"""The metrics adapter behind a real API server: what it sums, what it refuses, whom it answers."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from adapter_process import API_SERVICE_KIND, NAME, ProductAdapter, registered, serving
from cluster_adapter import API_SERVICE, foreign_api_service
from cluster_certificates import Authority
from cluster_client import ApiError, Client, Manifest
from cluster_control_plane import ControlPlane
from fake_metrics import FakeMetrics, fake_metrics

pytestmark = pytest.mark.anyio

USAGE = "pdc_kv_cache_usage_ratio"
DEMO = "cluster=demo,role=decode"


@pytest.fixture
async def adapter(admin: Client, control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[ProductAdapter]:
    async with serving(admin, control_plane, tmp_path) as running:
        yield running


@pytest.fixture
async def metrics() -> AsyncIterator[FakeMetrics]:
    async with fake_metrics() as found:
        yield found


async def worker(admin: Client, metrics: FakeMetrics, node: str, number: int, **labels: str) -> None:
    """A Ready pod as the operator makes them, with metrics."""
    marks = {
        "app.kubernetes.io/managed-by": "pdcluster-operator",
        "pdcluster.dev/cluster": "demo",
        "pdcluster.dev/role": "decode",
        "pdcluster.dev/counted": "true",
        **labels,
    }
    name = f"demo-{marks['pdcluster.dev/role']}-{number}"
    container = {"name": "worker", "image": "none", "ports": [{"name": "metrics", "containerPort": 8000}]}
    spec = {"nodeSelector": {"kubernetes.io/hostname": node}, "containers": [container]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": marks}, "spec": spec}
    await admin.create(manifest)
    pod = await admin.wait("v1/Pod", name, is_ready)
    assert pod is not None
    await metrics.serve(pod)


def is_ready(found: Manifest | None) -> bool:
    status = (found or {}).get("status", {})
    ready = any(entry["type"] == "Ready" and entry["status"] == "True" for entry in status.get("conditions", []))
    return ready and "podIP" in status


async def value(adapter: ProductAdapter, selector: str = DEMO, metric: str = USAGE) -> str:
    """The one value; empty while there is none."""
    answer = await adapter.answer(metric, selector)
    if isinstance(answer, ApiError):
        return ""
    assert len(answer["items"]) == 1
    return str(answer["items"][0]["value"])


async def until_value(adapter: ProductAdapter, expected: str) -> None:
    """The adapter hears of pods a moment after the test."""
    async with asyncio.timeout(20):
        while await value(adapter) != expected:
            await asyncio.sleep(0.2)


async def refusal(adapter: ProductAdapter, selector: str = DEMO, metric: str = USAGE) -> tuple[int, str] | None:
    answer = await adapter.answer(metric, selector)
    return (answer.status, answer.message) if isinstance(answer, ApiError) else None


async def test_a_value_is_the_sum_over_ready_workers_that_do_not_drain(
    admin: Client, node: str, adapter: ProductAdapter, metrics: FakeMetrics
) -> None:
    metrics.gauges = {USAGE: 0.25, "pdc_requests_running": 3}
    for number in range(3):
        await worker(admin, metrics, node, number)
    await worker(admin, metrics, node, 0, **{"pdcluster.dev/role": "prefill"})
    await until_value(adapter, "750m")
    assert await value(adapter, metric="pdc_requests_running") == "9"

    await admin.merge("v1/Pod", "demo-decode-1", {"metadata": {"labels": {"pdcluster.dev/counted": None}}})
    await until_value(adapter, "500m")
    both = await adapter.answer(USAGE, "cluster=demo,role in (decode,prefill)")
    assert not isinstance(both, ApiError)
    assert {entry["metricLabels"]["role"]: entry["value"] for entry in both["items"]} == {
        "decode": "500m",
        "prefill": "250m",
    }


async def test_nobody_asks_and_nothing_is_read(
    admin: Client, node: str, adapter: ProductAdapter, metrics: FakeMetrics
) -> None:
    metrics.gauges = {USAGE: 0.25}
    await worker(admin, metrics, node, 0)
    await until_value(adapter, "250m")
    reads = metrics.reads
    answers = await asyncio.gather(*(value(adapter) for _ in range(20)))
    assert set(answers) == {"250m"}
    assert metrics.reads <= reads + 1, "questions at the same time share a reading"


async def test_a_worker_that_cannot_be_read_makes_an_error_and_never_a_smaller_sum(
    admin: Client, node: str, adapter: ProductAdapter, metrics: FakeMetrics
) -> None:
    metrics.gauges = {USAGE: 0.5}
    for number in range(2):
        await worker(admin, metrics, node, number)
    await until_value(adapter, "1")

    metrics.silent.add("demo-decode-1")
    seen: set[str] = set()
    async with asyncio.timeout(40):
        while found := await value(adapter):
            seen.add(found)
            await asyncio.sleep(0.5)
    assert seen == {"1"}
    refused = await refusal(adapter)
    assert refused is not None
    assert refused[0] == 503
    assert "demo-decode-1" in refused[1]

    metrics.silent.clear()
    await until_value(adapter, "1")


REFUSED = [
    ("cluster=demo", USAGE, 400, "names no role"),
    ("", USAGE, 400, "names no cluster"),
    (f"{DEMO},pod=x", USAGE, 400, "label 'pod'"),
    ("cluster!=demo,role=decode", USAGE, 400, "not understood"),
    ("cluster=other,role=decode", USAGE, 404, "no workers"),
    ("cluster=demo,role=router", USAGE, 404, "no workers"),
    (DEMO, "pdc_temperature", 404, "is none of"),
    (DEMO, "pdc_requests_running", 503, "is not told by demo-decode-0"),
]


async def test_a_question_that_cannot_be_answered_is_refused(
    admin: Client, node: str, adapter: ProductAdapter, metrics: FakeMetrics
) -> None:
    metrics.gauges = {USAGE: 0.5}
    await worker(admin, metrics, node, 0)
    await until_value(adapter, "500m")
    for selector, metric, status, told in REFUSED:
        refused = await refusal(adapter, selector, metric)
        assert refused is not None, selector
        assert refused[0] == status, refused
        assert told in refused[1]
    elsewhere = await adapter.of("kube-system").answer(USAGE, DEMO)
    assert isinstance(elsewhere, ApiError)
    assert elsewhere.status == 404, "the workers of another namespace are nobody else's"


async def get(port: int, context: ssl.SSLContext) -> bytes:
    """A request past the API server; raises OSError when the connection is refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        writer.write(b"GET /apis/external.metrics.k8s.io/v1beta1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()


def caller(certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate, key)
    return context


async def test_only_the_front_proxy_is_answered(
    admin: Client, adapter: ProductAdapter, control_plane: ControlPlane, tmp_path: Path
) -> None:
    folder = control_plane.folder
    proxy = caller(folder / "front-proxy.crt", folder / "front-proxy.key")
    assert (await get(adapter.ports[0], proxy)).startswith(b"HTTP/1.1 200")

    stranger = Authority("front-proxy-ca").issue("front-proxy-client")
    (tmp_path / "stranger.crt").write_bytes(stranger.certificate)
    (tmp_path / "stranger.key").write_bytes(stranger.key)
    for context in (caller(), caller(tmp_path / "stranger.crt", tmp_path / "stranger.key")):
        try:
            answer = await get(adapter.ports[0], context)
        except OSError:
            continue
        assert answer == b"", "a caller without the front proxy's certificate got an answer"


async def shown(port: int, plane: ControlPlane) -> bytes:
    context = caller(plane.folder / "front-proxy.crt", plane.folder / "front-proxy.key")
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return bytes(found)


async def test_replicas_that_start_at_once_show_one_certificate_which_the_api_server_trusts(
    admin: Client, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with registered(admin, control_plane, tmp_path) as adapter:
        adapter.start()
        adapter.reserve()
        adapter.start()
        for port in adapter.health:
            adapter.programs[0].wait_ready(f"http://127.0.0.1:{port}/ready", seconds=30)

        certificates = {await shown(port, control_plane) for port in adapter.ports}
        assert len(certificates) == 1
        secret = await admin.get("v1/Secret", f"{NAME}-tls")
        service = await admin.get(API_SERVICE_KIND, API_SERVICE)
        assert service["spec"]["caBundle"] == secret["data"]["bundle.crt"]
        assert ssl.PEM_cert_to_DER_cert(base64.b64decode(secret["data"]["tls.crt"]).decode()) in certificates


async def test_a_bundle_that_somebody_spoils_is_put_right(admin: Client, adapter: ProductAdapter) -> None:
    good = (await admin.get(API_SERVICE_KIND, API_SERVICE))["spec"]["caBundle"]
    await admin.merge(API_SERVICE_KIND, API_SERVICE, {"spec": {"caBundle": None}})
    await admin.wait(API_SERVICE_KIND, API_SERVICE, lambda found: (found or {})["spec"].get("caBundle") == good)


async def test_an_emptied_secret_is_filled_again_and_trusted(
    admin: Client, adapter: ProductAdapter, control_plane: ControlPlane
) -> None:
    old = (await admin.get("v1/Secret", f"{NAME}-tls"))["data"]
    await admin.merge("v1/Secret", f"{NAME}-tls", {"data": None})

    def is_filled(found: Manifest | None) -> bool:
        data = (found or {}).get("data") or {}
        return bool(data) and data["tls.crt"] != old["tls.crt"]

    secret = await admin.wait("v1/Secret", f"{NAME}-tls", is_filled)
    bundle = (secret or {})["data"]["bundle.crt"]
    await admin.wait(API_SERVICE_KIND, API_SERVICE, lambda found: (found or {})["spec"].get("caBundle") == bundle)
    async with asyncio.timeout(20):
        while (await refusal(adapter) or (0, ""))[0] != 404:
            await asyncio.sleep(0.2)


async def test_an_adapter_that_was_there_first_stays(
    admin: Client, control_plane: ControlPlane, tmp_path: Path
) -> None:
    async with registered(admin, control_plane, tmp_path) as adapter:
        await admin.delete(API_SERVICE_KIND, API_SERVICE)
        await admin.create(foreign_api_service("prometheus-adapter"))
        before = await admin.get(API_SERVICE_KIND, API_SERVICE)
        program = adapter.start()
        assert await asyncio.to_thread(program.wait, 30) == 1
        assert "belongs to Service monitoring/prometheus-adapter" in program.tail()
        after = await admin.get(API_SERVICE_KIND, API_SERVICE)
        assert after["spec"] == before["spec"]


async def test_an_adapter_that_takes_over_ends_ours(
    admin: Client, adapter: ProductAdapter, control_plane: ControlPlane
) -> None:
    other = {"name": "keda-operator-metrics-apiserver", "namespace": "keda"}
    await admin.merge(API_SERVICE_KIND, API_SERVICE, {"spec": {"service": other}})
    assert await asyncio.to_thread(adapter.programs[0].wait, 30) == 1
    assert (await admin.get(API_SERVICE_KIND, API_SERVICE))["spec"]["service"]["namespace"] == "keda"
