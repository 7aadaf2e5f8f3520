"""Inference.Stream: routers' requests into the engine's inbox, its words back, one multiplexed stream per router.

Everything here runs on the I/O loop. A router that reads slowly fills its own bounded queue and is disconnected.
"""

import asyncio
import itertools
import time
from collections.abc import Callable

import structlog

from pdcluster_worker.core.effects import RouterOut
from pdcluster_worker.core.events import Aborted, Attached, Event, StreamClosed, StreamOpened, Submitted
from pdcluster_worker.core.ids import StreamId
from pdcluster_worker.engine.ports import Status
from pdcluster_worker.engine.switchboard import Switchboard
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise.engine_port import EnginePort
from pdcluster_worker.splitwise.identity import WorkerIdentity
from pdcluster_worker.splitwise.incoming import ServerContext, read_hello, read_message
from pdcluster_worker.splitwise.inference_codec import decode_router, encode_worker
from pdcluster_worker.splitwise.inference_messages import (
    PeerRecord,
    RouterBatch,
    RouterHello,
    WorkerBatch,
    WorkerHello,
    WorkerState,
)
from pdcluster_worker.splitwise.limits import MAX_PENDING_BYTES
from pdcluster_worker.splitwise.outbound import Outbound

log = structlog.get_logger(__name__)

STATE_INTERVAL = 1.0
"""A router hears of the worker's state at least this often; of changes as they come."""

PeersChanged = Callable[[StreamId, tuple[PeerRecord, ...] | None], None]
"""What a router knows now; None: its stream has closed."""


class InferenceService:
    def __init__(
        self,
        identity: WorkerIdentity,
        engine: EnginePort,
        board: Switchboard,
        peers_changed: PeersChanged,
        pods_gone: Callable[[tuple[str, ...]], None],
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self._identity = identity
        self._engine = engine
        self._board = board
        self._peers_changed = peers_changed
        self._pods_gone = pods_gone
        self._max_pending_bytes = max_pending_bytes
        self._numbers = itertools.count(1)
        self._open: set[Outbound] = set()

    async def serve(self, context: ServerContext) -> None:
        """One router's stream, from its first message to its end."""
        first = decode_router(await read_hello(context.read), time.monotonic())
        if first.hello is None:
            raise ProtocolError("hello: missing from the first message", "order")
        self._check_model(first.hello)
        stream = StreamId(next(self._numbers))
        outbound = Outbound(self._max_pending_bytes)
        outbound.push(encode_worker(WorkerBatch(hello=self._hello())))
        self._open.add(outbound)
        self._engine.post(StreamOpened(stream=stream))
        self._board.routers[stream] = lambda out: _push(outbound, out)
        log.info("router_connected", router=first.hello.router_id, stream=stream)
        try:
            await outbound.run(context.write, self._read(stream, context), self._push_states(outbound))
        finally:
            self._open.discard(outbound)
            del self._board.routers[stream]
            self._engine.post(StreamClosed(stream=stream))
            self._peers_changed(stream, None)
            log.info("router_disconnected", router=first.hello.router_id, stream=stream)

    def finish(self) -> None:
        """End every stream once what waits on it is written."""
        for outbound in self._open:
            outbound.finish()

    async def _read(self, stream: StreamId, context: ServerContext) -> None:
        while (data := await read_message(context.read)) is not None:
            batch = decode_router(data, time.monotonic())
            if batch.hello is not None:
                raise ProtocolError("hello: sent a second time", "order")
            if batch.peers is not None:
                self._peers_changed(stream, batch.peers)
            if batch.gone_pods:
                self._pods_gone(batch.gone_pods)
            self._engine.post(*_events(stream, batch))

    async def _push_states(self, outbound: Outbound) -> None:
        """Each change as the engine reports it, and the same again when nothing has changed for a while."""
        news = asyncio.Event()
        unwatch = self._board.watch(lambda _status: news.set())
        try:
            while True:
                if self._board.status is not None:
                    outbound.push(encode_worker(WorkerBatch(state=_state(self._board.status))))
                news.clear()
                try:
                    async with asyncio.timeout(STATE_INTERVAL):
                        await news.wait()
                except TimeoutError:
                    continue
        finally:
            unwatch()

    def _check_model(self, hello: RouterHello) -> None:
        if hello.model not in ("", self._identity.model):
            raise ProtocolError(f"model: {hello.model!r} is not served here, {self._identity.model!r} is", "model")

    def _hello(self) -> WorkerHello:
        me = self._identity
        return WorkerHello(
            instance_id=me.instance_id,
            name=me.name,
            role=me.role,
            revision=me.revision,
            layout_hash=me.layout_hash,
            model=me.model,
            max_model_length=me.max_model_length,
            vocab_size=me.vocab_size,
            block_size=me.block_size,
            pool_tokens=me.num_blocks * me.block_size,
        )


def _push(outbound: Outbound, out: RouterOut) -> None:
    outbound.push(encode_worker(WorkerBatch(out=out)))


def _events(stream: StreamId, batch: RouterBatch) -> list[Event]:
    events: list[Event] = [Submitted(stream=stream, handle=item.handle, request=item.request) for item in batch.submits]
    events.extend(
        Attached(
            stream=stream,
            handle=item.handle,
            key=item.key,
            next_index=item.next_index,
            prefill_lost=item.prefill_lost,
        )
        for item in batch.attaches
    )
    events.extend(Aborted(stream=stream, key=item.key, handle=item.handle) for item in batch.aborts)
    return events


def _state(status: Status) -> WorkerState:
    snapshot = status.snapshot
    return WorkerState(
        queued_tokens=snapshot.queued_tokens,
        prefill_tokens_per_second=snapshot.prefill_tokens_per_second,
        kv_usage=snapshot.kv_usage,
        running=snapshot.requests_running,
        waiting=snapshot.requests_waiting,
        free_slots=snapshot.free_slots,
        draining=snapshot.draining,
        kv_peers=snapshot.kv_peers,
    )
