"""All that a worker shows to the network, on the I/O thread; the engine loop's outlet."""

from collections.abc import Callable

from pdcluster_worker.config import WorkerConfig
from pdcluster_worker.core.ids import StreamId
from pdcluster_worker.engine.admin_service import AdminService
from pdcluster_worker.engine.inference_service import InferenceService
from pdcluster_worker.engine.io_thread import IoThread
from pdcluster_worker.engine.ports import Outgoing, Status
from pdcluster_worker.engine.roles import RoleParts
from pdcluster_worker.engine.server import GrpcServer
from pdcluster_worker.engine.switchboard import Switchboard
from pdcluster_worker.errors import StateError
from pdcluster_worker.metrics import WorkerMetrics
from pdcluster_worker.splitwise.client import DecodeLinks
from pdcluster_worker.splitwise.engine_port import EnginePort
from pdcluster_worker.splitwise.identity import WorkerIdentity
from pdcluster_worker.splitwise.inference_messages import PeerRecord
from pdcluster_worker.splitwise.server import LinkServer
from pdcluster_worker.splitwise.tls import TLSIdentity

START_TIMEOUT = 10.0
FLUSH_TIMEOUT = 2.0
"""What streams get at the end to write out what waits on them."""


class Front:
    """Methods are for the main thread, `deliver` for the engine's; what they start runs on the I/O loop."""

    def __init__(self, config: WorkerConfig, metrics: WorkerMetrics) -> None:
        self._config = config
        self._metrics = metrics
        self._tls = TLSIdentity(config.tls, config.cluster) if config.tls is not None else None
        self._io = IoThread()
        self._board = Switchboard()
        self._server: GrpcServer | None = None
        self._inference: InferenceService | None = None
        self._admin = AdminService(self._tls, self._board)
        self._links: DecodeLinks | None = None
        self._link_server: LinkServer | None = None

    def start(self) -> int:
        """Listens; returns the port. Health says NOT_SERVING until `open`."""
        self._io.start()
        return self._io.call(self._start()).result(START_TIMEOUT)

    def open(self, identity: WorkerIdentity, engine: EnginePort, role: RoleParts, lease_ttl: float) -> None:
        """The model is loaded: serve."""
        self._io.call(self._open(identity, engine, role, lease_ttl)).result(START_TIMEOUT)

    def deliver(self, outgoing: Outgoing) -> None:
        self._io.post(self._board.deliver, outgoing)

    def when_drained(self, tell: Callable[[], None]) -> None:
        """`tell` is called, on the I/O loop, with every status that says so."""

        def look(status: Status) -> None:
            if status.drained:
                tell()

        self._io.post(self._board.watch, look)

    def close(self) -> None:
        """Writes out what waits, then ends everything. Also right after a `start` that failed."""
        try:
            self._io.call(self._close()).result(FLUSH_TIMEOUT + START_TIMEOUT)
        finally:
            self._io.stop()

    async def _start(self) -> int:
        self._server = GrpcServer(self._config.max_message_bytes, self._tls, self._metrics, self._admin)
        return await self._server.start(self._config.host, self._config.grpc_port)

    async def _open(self, identity: WorkerIdentity, engine: EnginePort, role: RoleParts, lease_ttl: float) -> None:
        if self._server is None:
            raise StateError("open before start")
        self._admin.open(identity, engine)
        self._inference = InferenceService(identity, engine, self._board, self._peers_changed, self._pods_gone)
        if role.links_to_decode:
            self._links = DecodeLinks(
                identity, engine, self._board.decodes, self._tls, self._metrics, self._config.max_message_bytes
            )
        if role.serves_links:
            self._link_server = LinkServer(identity, engine, self._board.prefills, self._metrics, lease_ttl)
        await self._server.open(self._inference.serve, self._link_server.serve if self._link_server else None)

    def _peers_changed(self, stream: StreamId, peers: tuple[PeerRecord, ...] | None) -> None:
        """Only a prefill worker needs to know who else there is."""
        if self._links is not None:
            self._links.peers_changed(stream, peers)

    def _pods_gone(self, names: tuple[str, ...]) -> None:
        if self._link_server is not None:
            self._link_server.pods_gone(names)

    async def _close(self) -> None:
        if self._inference is not None:
            self._inference.finish()
        if self._link_server is not None:
            self._link_server.finish()
        if self._links is not None:
            await self._links.close()
        if self._server is not None:
            await self._server.close(FLUSH_TIMEOUT)
