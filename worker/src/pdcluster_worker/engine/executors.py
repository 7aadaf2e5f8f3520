"""The executor processes of one worker, one per rank, from start to end."""

import queue
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from pdcluster_worker.config import ExecutorConfig, WorkerConfig
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import RankMetadata
from pdcluster_worker.engine.items import ExecutorExited, ExecutorSaid
from pdcluster_worker.errors import ExecutorError, TransportError
from pdcluster_worker.ipc.client import ExecutorProcess
from pdcluster_worker.ipc.messages import ExecutorReady, PeerInfo, ToExecutor
from pdcluster_worker.ipc.runtime import make_socket_folder, socket_addresses

log = structlog.get_logger(__name__)


Post = Callable[[ExecutorSaid | ExecutorExited], None]


class ExecutorGroup:
    """Started on the main thread, whose life the processes share; then the engine thread takes over."""

    def __init__(self, config: WorkerConfig, instance_id: str, notify: Callable[[], None], world_size: int = 1) -> None:
        """`notify` is called, on inner threads, when there is something for `take_ready`."""
        self._config = config
        self._instance_id = instance_id
        self._world_size = world_size
        self._folder: Path | None = None
        self._processes: list[ExecutorProcess] = []
        self._notify = notify
        self._starting: queue.SimpleQueue[ExecutorSaid | ExecutorExited] = queue.SimpleQueue()
        self._ready: dict[int, ExecutorReady] = {}
        self._lock = threading.Lock()
        self._post: Post = self._keep

    def spawn(self) -> None:
        """Raises ExecutorError when a process cannot be made."""
        self._folder = make_socket_folder()
        for rank in range(self._world_size):
            self._processes.append(self._spawn(rank, self._folder))

    def take_ready(self, loading: Callable[[float], None]) -> tuple[ExecutorReady, ...] | None:
        """Takes in what has come; all ranks once they are ready. Raises ExecutorError when one has failed."""
        while not self._starting.empty():
            item = self._starting.get_nowait()
            if isinstance(item, ExecutorExited):
                raise ExecutorError(item.reason)
            if item.message.rank == 0 and item.message.loading >= 0:
                loading(item.message.loading)
            if item.message.ready is not None:
                self._ready[item.message.rank] = item.message.ready
        if len(self._ready) < self._world_size:
            return None
        return tuple(self._ready[rank] for rank in range(self._world_size))

    def hand_over(self, post: Post) -> None:
        """From now on everything that executors say goes to `post`, what has waited first."""
        with self._lock:
            while not self._starting.empty():
                post(self._starting.get_nowait())
            self._post = post

    def _keep(self, item: ExecutorSaid | ExecutorExited) -> None:
        self._starting.put(item)
        self._notify()

    def _hear(self, item: ExecutorSaid | ExecutorExited) -> None:
        """On the listeners' threads."""
        with self._lock:
            self._post(item)

    def send(self, message: ToExecutor) -> None:
        for process in self._processes:
            process.send(message)

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> None:
        if len(ranks) != len(self._processes):
            raise TransportError(f"{peer} has {len(ranks)} ranks, this worker {len(self._processes)}")
        for process, metadata in zip(self._processes, ranks, strict=True):
            process.send(ToExecutor(add_peers=(PeerInfo(peer, metadata),)))

    def stop(self, timeout: float) -> None:
        """On the thread that sends; kills what does not end by itself."""
        for process in self._processes:
            try:
                process.stop(timeout)
            except ExecutorError as error:
                log.warning("executor_killed", reason=str(error))
                process.kill()
                process.close()
        self._processes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _spawn(self, rank: int, folder: Path) -> ExecutorProcess:
        plan_socket, report_socket = socket_addresses(folder, rank)
        config = ExecutorConfig(
            model_path=self._config.model_path,
            model_name=self._config.model_name,
            engine=self._config.engine,
            kv_protocol=self._config.kv_protocol,
            gpu_count=self._config.gpu_count,
            rank=rank,
            world_size=self._world_size,
            plan_socket=plan_socket,
            report_socket=report_socket,
            instance_id=self._instance_id,
            threads=self._config.threads,
            cpu_affinity=self._config.cpu_affinity,
            host=self._config.host,
        )
        return ExecutorProcess.spawn(
            config,
            lambda message: self._hear(ExecutorSaid(message)),
            lambda reason: self._hear(ExecutorExited(rank, reason)),
        )
