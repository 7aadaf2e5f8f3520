"""The worker as a process: its lines, its failures, its end, and what its executor's death does."""

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc.aio
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from worker_client import WorkerClient
from worker_processes import ERNIE, ManagedProcess, WorkerProcess, start_worker

from pdcluster_proto.v1 import admin_pb2, admin_pb2_grpc
from pdcluster_worker.core.wire import FailureCode

SIMULATED: dict[str, object] = {"runner": "Simulated", "block_size": 16, "kv_blocks": 512, "threads": 1}
LONG = 400
"""Output tokens that the simulated model needs some seconds for."""


def start(role: str = "mixed", **options: object) -> WorkerProcess:
    return start_worker(role, **{**SIMULATED, **options})  # type: ignore[arg-type]


def failure(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """The reason of a start that must fail, with status 1."""
    with ManagedProcess("worker", *arguments, environment=environment) as process:
        reason = str(process.wait_for("failed", 60)["reason"])
        assert process.wait_ended() == 1
        assert not process.noise, process.noise
        return reason


def flags(role: str = "mixed", model: Path = ERNIE, *extra: str) -> list[str]:
    return ["--role", role, "--model-path", str(model), "--model-name", "test", "--runner", "Simulated", *extra]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


# --- starts that fail -------------------------------------------------------------------------------


def test_a_wrong_flag_is_named() -> None:
    assert "--role" in failure("--role", "router", "--model-path", str(ERNIE), "--model-name", "test")
    assert "--prepare-threads" in failure(*flags(), "--prepare-threads", "0")
    assert "--cpu-affinity" in failure(*flags(), "--cpu-affinity", "first")


def test_tls_files_go_together_and_need_the_cluster(tmp_path: Path) -> None:
    assert "--tls-ca" in failure(*flags(), "--tls-cert", str(tmp_path / "a"), "--tls-key", str(tmp_path / "b"))
    three = [part for name in ("cert", "key", "ca") for part in (f"--tls-{name}", str(tmp_path / name))]
    assert "--cluster" in failure(*flags(), *three)
    assert str(tmp_path / "cert") in failure(*flags(), *three, "--cluster", "demo.default")


def test_a_port_in_use_is_named(taken_port: int) -> None:
    assert str(taken_port) in failure(*flags(), "--grpc-port", str(taken_port))
    assert str(taken_port) in failure(*flags(), "--metrics-port", str(taken_port))


def test_a_port_of_another_worker_is_not_shared() -> None:
    with start() as worker:
        port = worker.address.rpartition(":")[2]
        assert port in failure(*flags(), "--grpc-port", port)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in failure(*flags("mixed", tmp_path / "nothing"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    arguments = ["--role", "mixed", "--model-path", str(broken), "--model-name", "test"]
    assert failure(*arguments), "the executor's reason comes through"


# --- a life that goes well --------------------------------------------------------------------------


def test_prepare_threads_come_from_the_environment() -> None:
    with start_worker("mixed", environment={"PDC_PREPARE_THREADS": "3"}, **SIMULATED) as worker:  # type: ignore[arg-type]
        assert prepare_threads(worker) == 3
    with start_worker(
        "mixed",
        environment={"PDC_PREPARE_THREADS": "3"},
        **SIMULATED,  # type: ignore[arg-type]
        prepare_threads=7,
    ) as worker:
        assert prepare_threads(worker) == 7


def prepare_threads(worker: WorkerProcess) -> int:
    return int(worker.metric("pdc_prepare_threads"))


def test_health_admin_and_drain() -> None:
    async def main(worker: WorkerProcess) -> None:
        async with grpc.aio.insecure_channel(worker.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            reply = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
            stub = admin_pb2_grpc.AdminStub(channel)
            about = await stub.Describe(admin_pb2.DescribeRequest(), timeout=10)
            assert (about.name, about.instance_id) == ("mixed", worker.instance_id)
            assert sum(about.blocks.values()) == 512
            async with WorkerClient([worker.address]) as client:
                running = await client.start([1, 2, 3], max_tokens=50, ignore_eos=True)
                await asyncio.wait_for(running.news.wait(), 20)
                drain = [item async for item in stub.Drain(admin_pb2.DrainRequest(deadline_ms=20_000), timeout=30)]
                assert drain[-1].drained
                await asyncio.wait_for(running.done.wait(), 10)
                assert running.finished is not None, "a drain lets requests finish"
                refused = await client.generate([1, 2, 3])
                assert refused.failed is not None
                assert refused.failed.code is FailureCode.DRAINING
                await stub.Resume(admin_pb2.ResumeRequest(), timeout=10)
                assert (await client.generate([1, 2, 3], max_tokens=2)).failed is None

    with start() as worker:
        asyncio.run(main(worker))
        worker.check_nothing_held()


def test_sigterm_finishes_what_runs_and_exits_0() -> None:
    async def main(worker: WorkerProcess) -> None:
        async with WorkerClient([worker.address]) as client:
            running = await client.start(list(range(20)), max_tokens=100, ignore_eos=True)
            await asyncio.wait_for(running.news.wait(), 20)
            for _ in range(3):
                worker.child.send_signal(signal.SIGTERM)
            worker.child.send_signal(signal.SIGINT)
            await asyncio.wait_for(running.done.wait(), 30)
            assert running.finished is not None
            assert len(running.tokens) == 100

    with start() as worker:
        asyncio.run(main(worker))
        assert worker.wait_ended() == 0
        assert not worker.noise, worker.noise


def test_sigterm_hands_back_what_does_not_end_in_time() -> None:
    async def main(worker: WorkerProcess) -> None:
        async with WorkerClient([worker.address]) as client:
            running = await client.start(list(range(20)), max_tokens=3000, ignore_eos=True)
            await asyncio.wait_for(running.news.wait(), 20)
            worker.child.send_signal(signal.SIGTERM)
            await asyncio.wait_for(running.done.wait(), 30)
            assert running.failed is not None
            assert running.failed.code is FailureCode.DRAINING

    with start(drain_timeout=0.5) as worker:
        asyncio.run(main(worker))
        assert worker.wait_ended() == 0


def test_sigterm_while_loading_ends_at_once() -> None:
    with start_worker("mixed", wait=False, threads=1) as worker:
        worker.wait_for("starting")
        assert worker.terminate() == 0
        assert not any(line.get("event") in ("ready", "failed") for line in worker.lines)


def test_an_idle_worker_rests() -> None:
    with start() as worker:
        engine = psutil.Process(worker.pid)
        threading.Event().wait(1.0)
        before, since = engine.cpu_times(), time.monotonic()
        threading.Event().wait(4.0)
        after, seconds = engine.cpu_times(), time.monotonic() - since
        used = after.user + after.system - before.user - before.system
        assert used / seconds < 0.02


# --- deaths -----------------------------------------------------------------------------------------


def test_the_executors_death_fails_requests_and_ends_the_worker() -> None:
    async def main(worker: WorkerProcess) -> None:
        async with WorkerClient([worker.address]) as client:
            running = await client.start([1, 2, 3], max_tokens=3000, ignore_eos=True)
            await asyncio.wait_for(running.news.wait(), 20)
            for pid in worker.executor_pids():
                os.kill(pid, signal.SIGKILL)
            await asyncio.wait_for(running.done.wait(), 20)
            assert running.failed is not None
            assert running.failed.code is FailureCode.EXECUTOR_LOST
            assert running.failed.was_running

    with start() as worker:
        asyncio.run(main(worker))
        assert worker.wait_ended() == 1
        assert "SIGKILL" in worker.wait_for("failed")["reason"]


def test_the_engines_death_takes_the_executor_along() -> None:
    with start() as worker:
        executors = [psutil.Process(pid) for pid in worker.executor_pids()]
        assert executors
        worker.kill()
        gone, alive = psutil.wait_procs(executors, timeout=10)
        assert len(gone) == len(executors), alive
