"""The executor process: the engine's messages in, reports out, steps in between.

| thread | owns |
|---|---|
| main | the runner, the slot table, the order of plans |
| receiver | the PULL socket; hands plans to main and transfers to the sender, so neither waits for the present step |
| sender | peers, transfers, the transport's handles |
| fences | answers fences, each of which may take a second |
| reporter | the PUSH socket |

An error of a step, of the engine's messages or of the sender is fatal: one `fatal` report, then the process ends
with status 1, and the engine with it. The process dies with the engine, however that dies.
"""

import os
import signal
import sys
import threading
import time
from typing import NoReturn

import structlog
import zmq

from pdcluster_worker.config import ExecutorConfig
from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import ExecutorError, WorkerError
from pdcluster_worker.executor.commands import AddPeer, Cancel, Register, RemovePeer
from pdcluster_worker.executor.factory import make_runner
from pdcluster_worker.executor.fences import FenceKeeper
from pdcluster_worker.executor.reports import Reporter
from pdcluster_worker.executor.runner import ModelRunner
from pdcluster_worker.executor.sender import TransferSender
from pdcluster_worker.executor.steps import End, Step, StepLoop, WorkQueue
from pdcluster_worker.executor.survival import die_with_parent, use_cores
from pdcluster_worker.ipc.messages import ExecutorReady, FromExecutor, ToExecutor
from pdcluster_worker.ipc.sockets import Receiver
from pdcluster_worker.kv.registry import make_transport
from pdcluster_worker.kv.transport import KVTransport
from pdcluster_worker.memory import settle

log = structlog.get_logger(__name__)

RECEIVER_TIMEOUT = 2.0


class _StopLoading(Exception):  # noqa: N818 - not an error: the engine no longer wants the model
    pass


def run_executor(config: ExecutorConfig) -> int:
    """The whole life of the process. Returns its exit status."""
    die_with_parent()
    use_cores(config.cpu_affinity)
    for ignored in (signal.SIGINT, signal.SIGTERM):  # a terminal signals the whole group: the engine decides
        signal.signal(ignored, signal.SIG_IGN)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    reporter = Reporter(config.report_socket, config.rank)
    executor = Executor(config, context, reporter)
    fatal = _outcome(executor)
    if fatal:
        _end_at_once(reporter, fatal)
    executor.close()
    reporter.close()
    context.term()
    return 0


def _outcome(executor: "Executor") -> str:
    """Runs to the end. What went wrong, in one sentence, or nothing."""
    try:
        executor.run()
    except WorkerError as error:
        return str(error)
    except Exception as error:  # the process's top: the engine must hear why
        log.exception("executor_failed")
        return f"{type(error).__name__}: {error}"
    return ""


def _end_at_once(reporter: Reporter, fatal: str) -> NoReturn:
    """Says why and ends with status 1, without an orderly end of transfers and agent: their state is not to be trusted,
    and the engine, which ends as well, must not wait for it."""
    log.error("executor_fatal", reason=fatal)
    reporter.put(FromExecutor(rank=reporter.rank, fatal=fatal))
    reporter.close()
    sys.stderr.flush()
    os._exit(1)


class Executor:
    """What one process holds. `run` and `close` belong to the main thread."""

    def __init__(self, config: ExecutorConfig, context: "zmq.Context[zmq.Socket[bytes]]", reporter: Reporter) -> None:
        self._config = config
        self._reporter = reporter
        self._work: WorkQueue = WorkQueue()
        self._ending = threading.Event()
        self._sender = TransferSender(config.rank, reporter.put, self._fail)
        self._fences: FenceKeeper | None = None
        self._transport: KVTransport | None = None
        self._receiver = threading.Thread(target=self._receive, args=(context,), name="receiver", daemon=True)
        self._receiver.start()

    def run(self) -> None:
        """Loads, reports ready, runs plans until the engine asks for the end. Raises what ends the process."""
        started = time.monotonic()
        try:
            runner = make_runner(self._config, self._loading)
        except _StopLoading:
            return
        metadata = self._open_transport(runner)
        self._report_ready(runner, metadata, time.monotonic() - started)
        settle()
        StepLoop(runner, self._config.rank, self._sender.put, self._reporter.put).run(self._work)

    def close(self) -> None:
        """Ends transfers and the transport. The receiver ends with the context."""
        if self._fences is not None:
            self._fences.close()
        self._sender.close()
        if self._transport is not None:
            self._transport.close()

    def _open_transport(self, runner: ModelRunner) -> RankMetadata:
        config, layout = self._config, runner.layout
        regions = tuple(Region(*region) for region in runner.regions())
        name = f"{config.instance_id}/{config.rank}"
        transport = make_transport(config.kv_protocol, name, config.gpu_count > 0, config.host)
        transport.register(regions)
        self._transport = transport
        self._sender.start(transport, layout, regions)
        self._fences = FenceKeeper(transport, self._fences_drained)
        return RankMetadata(config.rank, name, transport.metadata(), regions, layout.num_blocks, layout.block_bytes)

    def _report_ready(self, runner: ModelRunner, metadata: RankMetadata, seconds: float) -> None:
        layout = runner.layout
        ready = ExecutorReady(
            rank=self._config.rank,
            world_size=self._config.world_size,
            layout_hash=layout.layout_hash(),
            num_blocks=layout.num_blocks,
            block_size=layout.block_size,
            layers=layout.layers,
            max_model_length=runner.max_model_length,
            vocab_size=runner.vocab_size,
            metadata=metadata,
            load_seconds=seconds,
            device=runner.device,
            dtype=layout.dtype,
            model_bytes=runner.model_bytes,
        )
        self._reporter.put(FromExecutor(rank=self._config.rank, ready=ready))

    def _loading(self, fraction: float) -> None:
        if self._ending.is_set():
            raise _StopLoading
        self._reporter.put(FromExecutor(rank=self._config.rank, loading=fraction))

    def _fences_drained(self, fences: tuple[int, ...]) -> None:
        self._reporter.put(FromExecutor(rank=self._config.rank, fences=fences))

    def _fail(self, reason: str) -> None:
        """From any thread: the main thread ends with this reason, behind the work that it has."""
        self._work.put(End(reason))

    def _receive(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """The receiver thread."""
        receiver = Receiver(context, self._config.plan_socket, bind=False, message_type=ToExecutor)
        try:
            while (message := receiver.receive()) is not None:
                self._dispatch(message)
        except Exception as error:  # the thread's top: without it no plan would arrive
            log.exception("receiver_failed")
            self._fail(f"the receiver thread failed: {error}")
        receiver.close()

    def _dispatch(self, message: ToExecutor) -> None:
        """On the receiver thread; parts in the order that the message promises."""
        arrived = time.monotonic()
        received = message.sent_at or arrived
        for info in message.add_peers:
            self._sender.put(AddPeer(info))
        for peer in message.remove_peers:
            self._sender.put(RemovePeer(peer))
        for transfer in message.cancel_transfers:
            self._sender.put(Cancel(transfer))
        for spec in message.transfers:
            self._register(spec, received)
            self._work.put(spec)
        for plan in message.plans:
            for spec in plan.transfers:
                self._register(spec, received)
            self._work.put(Step(plan, arrived))
        for fence in message.fences:
            if self._fences is None:
                raise ExecutorError("a fence was asked for before the executor was ready")
            self._fences.ask(fence)
        if message.shutdown:
            self._ending.set()
            self._work.put(End())

    def _register(self, spec: TransferSpec, received: float) -> None:
        self._sender.put(Register(spec, received + spec.lifetime))
