"""The layer-wise sender: one thread that posts each layer's finished blocks while the rest of the model computes.

It is the only writer of the transfers, of the peers and of the transport's handles; others put commands into its
queue. Idle, it sleeps in that queue. While handles are pending it also wakes on its own, after 0.2 ms at first, then
ever later, for NIXL has no event for the completion of a write, only a state to ask for: noticing one takes at most a
quarter of the time that the write took, and a write that hangs costs 50 wake-ups a second.

A handle that does not become final keeps its transfer, and so the blocks on both sides, pinned: that is the point.
It becomes final when the peer answers, when the transport finds the peer dead, or when the peer is removed.
"""

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import structlog

from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import StateError, TransportError
from pdcluster_worker.executor.commands import (
    Activate,
    AddPeer,
    Cancel,
    Command,
    DropSlots,
    LayerWritten,
    Register,
    RemovePeer,
    Stop,
)
from pdcluster_worker.executor.transfers import Span, Transfer, TransferState, find_fault
from pdcluster_worker.ipc.messages import FromExecutor, PeerInfo, TransferReport
from pdcluster_worker.kv.coalesce import Side, coalesce, layer_writes
from pdcluster_worker.kv.layout import KVLayout
from pdcluster_worker.kv.transport import KVTransport, WriteHandle, WriteState

log = structlog.get_logger(__name__)

FIRST_POLL_SECONDS = 0.0002
LAST_POLL_SECONDS = 0.02
POLL_GROWTH = 1.25
LIFETIME_GUARD_SECONDS = 0.1
"""Longer than one post takes: the last bytes leave before the lifetime ends."""
MAX_POST_BYTES = 8 << 20
"""Of one post: the lifetime is checked between posts, and over shared memory a post copies before it returns."""
CLOSE_TIMEOUT = 2.0


class Part(NamedTuple):
    """Some blocks of one transfer, in some layers, and their bytes."""

    transfer: Transfer
    span: Span
    size: int

    def blocks(self, blocks: Sequence[int]) -> Sequence[int]:
        """Those of the span."""
        return blocks[self.span.begin : self.span.end]


class TransferSender:
    """Created at once so that commands can be queued; `start` comes with the loaded runner."""

    def __init__(self, rank: int, report: Callable[[FromExecutor], None], on_error: Callable[[str], None]) -> None:
        """`on_error` hears of a bug that ended the thread."""
        self._queue: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._rank = rank
        self._report = report
        self._on_error = on_error
        self._thread: threading.Thread | None = None

    def put(self, command: Command) -> None:
        self._queue.put(command)

    def start(self, transport: KVTransport, layout: KVLayout, regions: tuple[Region, ...]) -> None:
        desk = TransferDesk(transport, layout, regions, time.monotonic)
        self._thread = threading.Thread(target=self._run, args=(desk,), name="sender", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends every transfer, waits a little for pending handles, and frees the transport's peers."""
        if self._thread is not None:
            self._queue.put(Stop())
            self._thread.join(2 * CLOSE_TIMEOUT)

    def _run(self, desk: "TransferDesk") -> None:
        try:
            while not desk.stopped:
                self._turn(desk)
        except Exception as error:  # the thread's top: without it no transfer would ever end
            log.exception("sender_failed")
            self._on_error(f"the sender thread failed: {error}")

    def _turn(self, desk: "TransferDesk") -> None:
        for command in self._take(desk.next_wait()):
            desk.handle(command)
        desk.post_due()
        desk.poll()
        for message in desk.take_reports(self._rank):
            self._report(message)

    def _take(self, timeout: float | None) -> list[Command]:
        """All that is queued; waits for the first, at most `timeout`."""
        try:
            commands = [self._queue.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._queue.empty():
            commands.append(self._queue.get_nowait())
        return commands


class TransferDesk:
    """The sender thread's state, and what it does with it. Not thread-safe."""

    def __init__(
        self, transport: KVTransport, layout: KVLayout, regions: tuple[Region, ...], clock: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._layout = layout
        self._own = Side(regions, layout.num_blocks)
        self._clock = clock
        self._peers: dict[str, Side] = {}
        self._transfers: dict[int, Transfer] = {}
        self._advanced: dict[int, Transfer] = {}
        """Those that may have something to post since the last time."""
        self._posted: dict[WriteHandle, list[Transfer]] = {}
        """Pending handles, and whose blocks each of them writes."""
        self._pause = FIRST_POLL_SECONDS
        self._first_end = math.inf
        """No transfer's last moment to post is earlier."""
        self._reports: list[TransferReport] = []
        self._added: list[str] = []
        self._failed: list[tuple[str, str]] = []
        self._stop_at: float | None = None

    @property
    def stopped(self) -> bool:
        """Asked to stop, and nothing is pending or time is up."""
        return self._stop_at is not None and (not self._transfers or self._clock() >= self._stop_at)

    def next_wait(self) -> float | None:
        """How long to sleep without a command."""
        if self._posted:
            return self._pause
        return max(0.0, self._first_end - self._clock()) if self._transfers and self._first_end < math.inf else None

    def handle(self, command: Command) -> None:
        match command:
            case AddPeer(info):
                self._add_peer(info)
            case RemovePeer(peer):
                self._remove_peer(peer)
            case Register(spec, deadline):
                self._register(Transfer.begin(spec, deadline, self._layout.block_size, self._layout.layers))
            case Activate(transfer_id, computed):
                if transfer_id in self._transfers:
                    self._activate(self._transfers[transfer_id], computed)
            case LayerWritten(layer, ends):
                for transfer in self._active():
                    if transfer.spec.slot in ends:
                        transfer.layer_written(layer, ends[transfer.spec.slot])
                        self._advanced[transfer.spec.transfer_id] = transfer
            case DropSlots(slots):
                for transfer in self._active():
                    if transfer.spec.slot in slots and not transfer.complete():
                        transfer.fail("the request left its slot before its prompt was computed")
            case Cancel(transfer_id):
                if transfer_id in self._transfers:
                    self._transfers[transfer_id].fail("cancelled")
            case Stop():
                self._stop_at = self._clock() + CLOSE_TIMEOUT
                for transfer in self._transfers.values():
                    transfer.fail("the executor ends")

    def post_due(self) -> None:
        """Posts what has become ready, in few posts: blocks of several transfers to one peer may share one."""
        self._expire(self._clock())
        groups: dict[tuple[str, tuple[int, ...]], list[Part]] = {}
        for transfer in self._advanced.values():
            for part in self._parts(transfer):
                groups.setdefault((transfer.spec.peer, part.span.layers), []).append(part)
        self._advanced.clear()
        for group in groups.values():
            for parts in bounded_posts(group):
                self._post(parts)

    def poll(self) -> None:
        """Asks for the state of each pending handle, and ends the transfers that are over."""
        moved = False
        for handle in list(self._posted):
            state = self._transport.poll(handle)
            if state is WriteState.PENDING:
                continue
            moved = True
            self._transport.release(handle)
            for transfer in self._posted.pop(handle):
                if state is WriteState.DONE:
                    transfer.handle_done(handle)
                else:
                    transfer.handle_failed(handle)
        for transfer in list(self._transfers.values()):
            report = transfer.finish(self._clock())
            if report is not None:
                self._reports.append(report)
                del self._transfers[transfer.spec.transfer_id]
        self._pause = FIRST_POLL_SECONDS if moved else min(LAST_POLL_SECONDS, POLL_GROWTH * self._pause)

    def take_reports(self, rank: int) -> list[FromExecutor]:
        """What happened since the last call, as at most one message."""
        if not (self._reports or self._added or self._failed):
            return []
        message = FromExecutor(
            rank=rank,
            transfers=tuple(self._reports),
            peers_added=tuple(self._added),
            peers_failed=tuple(self._failed),
        )
        self._reports, self._added, self._failed = [], [], []
        return [message]

    def _active(self) -> list[Transfer]:
        return [transfer for transfer in self._transfers.values() if transfer.active]

    def _add_peer(self, info: PeerInfo) -> None:
        if info.peer in self._peers:
            self._remove_peer(info.peer)
        fault = find_mismatch(info.metadata, self._layout)
        if not fault:
            try:
                self._transport.add_peer(info.peer, info.metadata)
            except TransportError as error:
                fault = str(error)
        if fault:
            self._failed.append((info.peer, fault))
            return
        self._peers[info.peer] = Side(info.metadata.regions, info.metadata.num_blocks)
        self._added.append(info.peer)

    def _remove_peer(self, peer: str) -> None:
        self._peers.pop(peer, None)
        for transfer in self._transfers.values():
            if transfer.spec.peer == peer:
                transfer.fail("its peer was removed")
        self._transport.remove_peer(peer)

    def _register(self, transfer: Transfer) -> None:
        spec, peer = transfer.spec, self._peers.get(transfer.spec.peer)
        if spec.transfer_id in self._transfers:
            raise StateError(f"transfer {spec.transfer_id} is under way already")
        self._transfers[spec.transfer_id] = transfer
        self._first_end = min(self._first_end, last_post_at(transfer))
        if peer is None:
            transfer.fail(f"peer {spec.peer} is not known")
            return
        fault = find_fault(spec, self._layout.block_size, self._own.num_blocks, peer.num_blocks)
        if fault:
            transfer.fail(fault)
        elif spec.slot < 0:
            self._activate(transfer, spec.computed_tokens)

    def _activate(self, transfer: Transfer, computed: int) -> None:
        transfer.activate(computed)
        self._advanced[transfer.spec.transfer_id] = transfer

    def _parts(self, transfer: Transfer) -> list[Part]:
        """What is due, in parts of at most MAX_POST_BYTES or one layer's worth."""
        parts = []
        for span in transfer.due():
            per_layer = 2 * (span.end - span.begin) * self._layout.block_bytes
            step = max(1, MAX_POST_BYTES // per_layer)
            for first in range(0, len(span.layers), step):
                layers = span.layers[first : first + step]
                parts.append(Part(transfer, Span(layers, span.begin, span.end), per_layer * len(layers)))
        return parts

    def _post(self, parts: list[Part]) -> None:
        """One post. The parts are of the same layers and go to the same peer."""
        now = self._clock()
        parts = [part for part in parts if self._may_post(part.transfer, now)]
        if not parts:
            return
        peer, layers = parts[0].transfer.spec.peer, parts[0].span.layers
        runs = coalesce(
            [block for part in parts for block in part.blocks(part.transfer.spec.local_blocks)],
            [block for part in parts for block in part.blocks(part.transfer.spec.remote_blocks)],
        )
        writes = layer_writes(runs, layers, self._layout.block_bytes, self._own, self._peers[peer])
        try:
            handle = self._transport.post(peer, writes)
        except TransportError as error:
            for part in parts:
                part.transfer.fail(str(error))
            return
        for part in parts:
            part.transfer.mark_posted(part.span, handle, part.size, now)
        self._posted[handle] = [part.transfer for part in parts]
        self._pause = FIRST_POLL_SECONDS

    def _may_post(self, transfer: Transfer, now: float) -> bool:
        if now >= last_post_at(transfer):
            transfer.fail("its lifetime is over")
        return transfer.state is TransferState.SENDING

    def _expire(self, now: float) -> None:
        """Hundreds of transfers may be under way at each turn: they are looked at when the first may be over."""
        if now < self._first_end:
            return
        for transfer in self._transfers.values():
            if now >= last_post_at(transfer):
                transfer.fail("its lifetime is over")
        alive = [last_post_at(transfer) for transfer in self._transfers.values() if now < last_post_at(transfer)]
        self._first_end = min(alive, default=math.inf)


def last_post_at(transfer: Transfer) -> float:
    return transfer.deadline - LIFETIME_GUARD_SECONDS


def bounded_posts(group: list[Part]) -> list[list[Part]]:
    """In order, each of at most MAX_POST_BYTES or one part."""
    posts: list[list[Part]] = [[]]
    size = 0
    for part in group:
        if posts[-1] and size + part.size > MAX_POST_BYTES:
            posts.append([])
            size = 0
        posts[-1].append(part)
        size += part.size
    return posts


def find_mismatch(metadata: RankMetadata, layout: KVLayout) -> str:
    """Why a peer's regions do not fit this layout, or nothing."""
    if metadata.block_bytes != layout.block_bytes or len(metadata.regions) != layout.layers:
        return (
            f"{len(metadata.regions)} layers of blocks of {metadata.block_bytes} bytes there, "
            f"{layout.layers} of {layout.block_bytes} here"
        )
    needed = 2 * metadata.num_blocks * metadata.block_bytes
    if any(region.length != needed for region in metadata.regions):
        return f"a region of the peer is not of {needed} bytes, as its {metadata.num_blocks} blocks need"
    return ""
