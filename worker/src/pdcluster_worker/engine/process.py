"""The engine process from its first log line to its exit status.

The main thread starts everything, then waits for a signal or for the engine's end; it must live as long as the
executor, which dies with it.
"""

import signal
import threading
import time
import uuid

import structlog

from pdcluster_worker.config import WorkerConfig
from pdcluster_worker.core.config import CoreConfig
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.events import DrainAsked
from pdcluster_worker.engine.engine_port import LoopPort
from pdcluster_worker.engine.executors import ExecutorGroup
from pdcluster_worker.engine.front import Front
from pdcluster_worker.engine.items import Stop
from pdcluster_worker.engine.loop import EngineLoop
from pdcluster_worker.engine.metrics_server import MetricsServer
from pdcluster_worker.engine.prepare import PreparePool
from pdcluster_worker.engine.roles import RoleParts, make_role
from pdcluster_worker.engine.validate import ModelLimits
from pdcluster_worker.engine.wake import Wake, Word
from pdcluster_worker.errors import ExecutorError, WorkerError
from pdcluster_worker.ipc.messages import ExecutorReady
from pdcluster_worker.memory import settle
from pdcluster_worker.metrics import WorkerMetrics
from pdcluster_worker.splitwise.identity import WorkerIdentity

log = structlog.get_logger(__name__)

EXECUTOR_STOP_TIMEOUT = 5.0
LAST_TURN_TIMEOUT = 5.0
DRAIN_MARGIN = 2.0
"""Seconds after the drain's deadline in which the core reports what it gave up."""

LOADING_TIMEOUT = 600.0
"""A load that reports nothing new for so many seconds has failed."""


class StartInterruptedError(WorkerError):
    """The process was asked to end before its model was loaded."""


def run_worker(config: WorkerConfig) -> int:
    """The whole life of the process; returns its exit status. Call it on the main thread."""
    wake = Wake()
    wake.listen(signal.SIGTERM, signal.SIGINT)
    instance_id = f"{config.name}.{uuid.uuid4().hex}"
    log.info("starting", name=config.name, role=config.role, instance_id=instance_id)
    try:
        process = EngineProcess(config, instance_id, wake)
    except WorkerError as error:
        log.error("failed", reason=str(error))
        return 1
    try:
        failure = process.run()
    except StartInterruptedError:
        failure = ""
    except WorkerError as error:
        failure = str(error)
    finally:
        process.close()
    if failure:
        log.error("failed", reason=failure)
        return 1
    log.info("stopped")
    return 0


class EngineProcess:
    """What one process holds. All methods belong to the main thread."""

    def __init__(self, config: WorkerConfig, instance_id: str, wake: Wake) -> None:
        self._config = config
        self._instance_id = instance_id
        self._wake = wake
        self._metrics = WorkerMetrics()
        self._front = Front(config, self._metrics)
        self._executors = ExecutorGroup(config, instance_id, lambda: wake.put(Word.EXECUTOR))
        self._http: MetricsServer | None = None
        self._prepare: PreparePool | None = None
        self._engine: threading.Thread | None = None

    def run(self) -> str:
        """Returns why the engine failed; empty after an orderly end. Raises WorkerError when the start fails."""
        port = self._front.start()
        self._http = MetricsServer(self._config.host, self._config.metrics_port, self._metrics.registry)
        self._executors.spawn()
        ranks = self._wait_ready()
        identity = self._identity(ranks, port)
        loop = self._start_engine(identity)
        settle()
        self._http.open()
        log.info(
            "ready",
            instance_id=self._instance_id,
            address=identity.address,
            metrics=f"http://{self._config.host}:{self._http.port}/metrics",
            model=identity.model,
            role=identity.role,
            blocks=identity.num_blocks,
            block_size=identity.block_size,
            device=ranks[0].device,
            dtype=ranks[0].dtype,
            load_seconds=round(ranks[0].load_seconds, 3),
        )
        self._serve_until_end(loop)
        return loop.failure

    def close(self) -> None:
        """Ends what is left, in whatever state the start or the run has left it."""
        self._front.close()
        if self._prepare is not None:
            self._prepare.close()
        if self._engine is not None:
            self._engine.join(EXECUTOR_STOP_TIMEOUT + LAST_TURN_TIMEOUT)
        else:
            self._executors.stop(EXECUTOR_STOP_TIMEOUT)
        if self._http is not None:
            self._http.close()

    def _wait_ready(self) -> tuple[ExecutorReady, ...]:
        while True:
            word = self._wake.get(LOADING_TIMEOUT)
            if word is Word.SIGNAL:
                raise StartInterruptedError("asked to end while loading")
            if word is None:
                raise ExecutorError(f"the executor has said nothing for {LOADING_TIMEOUT:g} s")
            ready = self._executors.take_ready(lambda fraction: log.info("loading", fraction=round(fraction, 3)))
            if ready is not None:
                return ready

    def _identity(self, ranks: tuple[ExecutorReady, ...], port: int) -> WorkerIdentity:
        config, first = self._config, ranks[0]
        return WorkerIdentity(
            instance_id=self._instance_id,
            name=config.name,
            role=config.role,
            revision=config.revision,
            model=config.model_name,
            layout_hash=first.layout_hash,
            max_model_length=first.max_model_length,
            vocab_size=first.vocab_size,
            block_size=first.block_size,
            num_blocks=first.num_blocks,
            ranks=tuple(rank.metadata for rank in ranks),
            address=config.advertise or f"{config.host}:{port}",
        )

    def _start_engine(self, identity: WorkerIdentity) -> EngineLoop:
        limits = ModelLimits(identity.max_model_length, identity.vocab_size)
        role = make_role(identity.role, limits, identity.block_size, identity.model, identity.layout_hash)
        core_config = self._core_config(identity)
        loop = self._make_loop(core_config, role)
        self._executors.hand_over(loop.post)
        self._engine = threading.Thread(target=self._run_engine, args=(loop,), name="engine", daemon=True)
        self._engine.start()
        self._front.open(identity, LoopPort(loop), role, core_config.lease_ttl)
        return loop

    def _core_config(self, identity: WorkerIdentity) -> CoreConfig:
        engine = self._config.engine
        return CoreConfig(
            role=identity.role,
            num_blocks=identity.num_blocks,
            block_size=identity.block_size,
            max_model_length=identity.max_model_length,
            vocab_size=identity.vocab_size,
            model_id=identity.model,
            max_batch_tokens=engine.max_batch_tokens,
            max_running_requests=engine.max_running_requests,
            prefix_caching=engine.prefix_caching,
            ranks=len(identity.ranks),
        )

    def _make_loop(self, config: CoreConfig, role: RoleParts) -> EngineLoop:
        core = Core(config, time.monotonic())
        threads = self._config.engine.prepare_threads
        self._metrics.prepare_threads.set(threads)
        self._prepare = PreparePool(threads, role.prepare, lambda event: loop.post(event))
        loop = EngineLoop(core, self._executors, self._prepare, self._front, self._metrics, ranks=config.ranks)
        return loop

    def _run_engine(self, loop: EngineLoop) -> None:
        """The engine thread: the loop, then the end of the executors that it talked to."""
        loop.run()
        self._wake.put(Word.ENDED)
        self._executors.stop(EXECUTOR_STOP_TIMEOUT)

    def _serve_until_end(self, loop: EngineLoop) -> None:
        """The first signal drains; later ones change nothing."""
        while (word := self._wake.get()) not in (Word.SIGNAL, Word.ENDED):
            continue
        if word is Word.ENDED:
            return
        deadline = time.monotonic() + self._config.drain_timeout
        log.info("draining", seconds=self._config.drain_timeout)
        self._front.when_drained(lambda: self._wake.put(Word.DRAINED))
        loop.post(DrainAsked(deadline=deadline))
        if self._wake.get_one_of({Word.DRAINED, Word.ENDED}, deadline + DRAIN_MARGIN) is not Word.ENDED:
            loop.post(Stop())
            self._wake.get_one_of({Word.ENDED}, time.monotonic() + LAST_TURN_TIMEOUT)
