"""The prefill worker's end of links: one to every decode worker that its routers name. Lives on the I/O loop.

A link that breaks is opened again after a pause that grows from 0.1 to 2 s. Nothing here waits for an engine or a
peer without a deadline, and a peer that cannot be reached holds up no other.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

import grpc
import grpc.aio
import structlog

from pdcluster_worker.core.effects import ToDecode
from pdcluster_worker.core.events import DecodeHeartbeat, DecodeLinked, DecodeLost
from pdcluster_worker.core.ids import PeerId, StreamId
from pdcluster_worker.core.wire import Heartbeat
from pdcluster_worker.errors import ProtocolError, StateError, TransportError
from pdcluster_worker.splitwise.channel import SPLITWISE_LINK, open_channel
from pdcluster_worker.splitwise.engine_port import EnginePort
from pdcluster_worker.splitwise.handshake_codec import decode_welcome, encode_hello
from pdcluster_worker.splitwise.identity import WorkerIdentity
from pdcluster_worker.splitwise.incoming import MISMATCHES, LinkCounter, read_message, why_lost
from pdcluster_worker.splitwise.inference_messages import PeerRecord
from pdcluster_worker.splitwise.link_codec import encode_to_decode, read_from_decode
from pdcluster_worker.splitwise.link_messages import LinkHello, LinkWelcome
from pdcluster_worker.splitwise.outbound import Outbound, SlowPeerError
from pdcluster_worker.splitwise.peers import PeerDirectory
from pdcluster_worker.splitwise.tls import TLSIdentity

log = structlog.get_logger(__name__)

WELCOME_TIMEOUT = 5.0
ADD_PEER_TIMEOUT = 10.0
ENGINE_TIMEOUT = 5.0
SILENCE_TIMEOUT = 3.0
"""A peer speaks every second; after so long without a word the link counts as lost."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
MISMATCH_PAUSE = 10.0
"""A peer of another version or layout is not asked again soon."""

DecodeSinks = dict[PeerId, Callable[[ToDecode], None]]
Call = grpc.aio.StreamStreamCall[bytes, bytes]


class DecodeLinks:
    """Keeps one `DecodeLink` running per wanted address."""

    def __init__(
        self,
        identity: WorkerIdentity,
        engine: EnginePort,
        sinks: DecodeSinks,
        tls: TLSIdentity | None,
        counter: LinkCounter,
        max_message_bytes: int,
    ) -> None:
        self._identity = identity
        self._engine = engine
        self._sinks = sinks
        self._tls = tls
        self._counter = counter
        self._max_message_bytes = max_message_bytes
        self._directory = PeerDirectory(identity.revision, identity.layout_hash)
        self._links: dict[str, DecodeLink] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def peers_changed(self, stream: StreamId, records: Iterable[PeerRecord] | None) -> None:
        self._directory.update(stream, records, time.monotonic())
        self._refresh()

    async def close(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        links = list(self._links.values())
        self._links.clear()
        for link in links:
            await link.close()

    def _refresh(self) -> None:
        now = time.monotonic()
        wanted = self._directory.wanted(now)
        for address in self._links.keys() - wanted.keys():
            self._links.pop(address).drop()
        for address, record in wanted.items():
            if address not in self._links:
                self._links[address] = self._make_link(address)
            self._links[address].expect(PeerId(record.instance_id))
        if self._expiry is not None:
            self._expiry.cancel()
        expiry = self._directory.next_expiry()
        loop = asyncio.get_running_loop()
        self._expiry = None if expiry is None else loop.call_later(max(expiry - now, 0.0), self._refresh)

    def _make_link(self, address: str) -> "DecodeLink":
        def channel() -> grpc.aio.Channel:
            return open_channel(address, "decode", self._tls, self._max_message_bytes)

        return DecodeLink(address, channel, self._identity, self._engine, self._sinks, self._counter)


class DecodeLink:
    """The link to whatever decode process lives at one address; a task of its own runs until `drop`."""

    def __init__(
        self,
        address: str,
        channel: Callable[[], grpc.aio.Channel],
        identity: WorkerIdentity,
        engine: EnginePort,
        sinks: DecodeSinks,
        counter: LinkCounter,
    ) -> None:
        self._address = address
        self._channel = channel
        self._identity = identity
        self._engine = engine
        self._sinks = sinks
        self._counter = counter
        self._expected = PeerId("")
        self._known: PeerId | None = None
        """The process whose memory the executor can write into."""
        self._pause = FIRST_PAUSE
        self._hurry = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"link-{address}")

    def expect(self, instance: PeerId) -> None:
        """Routers say who lives there now; a newcomer is tried at once."""
        if instance != self._expected:
            self._expected = instance
            self._pause = FIRST_PAUSE
            self._hurry.set()

    def drop(self) -> None:
        self._task.cancel()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self._try_once()
                self._hurry.clear()
                try:
                    async with asyncio.timeout(self._pause):
                        await self._hurry.wait()
                except TimeoutError:
                    self._pause = min(2 * self._pause, LONGEST_PAUSE)
        finally:
            self._forget()

    async def _try_once(self) -> None:
        """One connection, to its end; whatever ends it is logged."""
        try:
            async with self._channel() as channel:
                await self._connect(channel)
        except ProtocolError as error:
            self._counter.protocol_error("decode", error.kind)
            if error.kind in MISMATCHES:
                self._pause = MISMATCH_PAUSE
            log.warning("link_failed", address=self._address, kind=error.kind, reason=str(error))
        except grpc.aio.AioRpcError as error:
            log.info("link_failed", address=self._address, code=error.code().name, reason=error.details())
        except (TimeoutError, TransportError, StateError, SlowPeerError, asyncio.InvalidStateError) as error:
            log.warning("link_failed", address=self._address, reason=str(error) or type(error).__name__)
        except asyncio.CancelledError:  # how grpc.aio says that the call was cancelled, by the peer too
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            log.info("link_failed", address=self._address, reason="the peer cancelled the call")

    async def _connect(self, channel: grpc.aio.Channel) -> None:
        call: Call = channel.stream_stream(SPLITWISE_LINK)()
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT):
                await call.write(encode_hello(await self._hello()))
                data = await read_message(call.read)
            if data is None:
                await call.initial_metadata()
                raise TransportError("the peer ended the link before its Welcome")
            welcome = decode_welcome(data, self._identity.layout_hash)
            await self._introduce(welcome)
            await self._talk(call, welcome)
        finally:
            call.cancel()

    async def _hello(self) -> LinkHello:
        me = self._identity
        heartbeat = Heartbeat(full=True)
        if self._expected:
            heartbeat = await asyncio.wrap_future(self._engine.lease_set(self._expected))
        return LinkHello(
            layout_hash=me.layout_hash,
            model=me.model,
            revision=me.revision,
            instance_id=me.instance_id,
            name=me.name,
            ranks=me.ranks,
            heartbeat=heartbeat,
        )

    async def _introduce(self, welcome: LinkWelcome) -> None:
        """The executor must be able to write there before the core may bind anything to the peer."""
        peer = PeerId(welcome.instance_id)
        if self._known == peer:
            return
        self._forget()
        async with asyncio.timeout(ADD_PEER_TIMEOUT):
            await asyncio.wrap_future(self._engine.add_peer(peer, welcome.ranks))
        self._known = peer

    async def _talk(self, call: Call, welcome: LinkWelcome) -> None:
        peer = PeerId(welcome.instance_id)
        outbound = Outbound()
        self._sinks[peer] = lambda out: outbound.push(encode_to_decode(out, time.monotonic()))
        self._engine.post(
            DecodeLinked(
                peer=peer, pool_blocks=welcome.pool_blocks, ranks=len(welcome.ranks), lease_ttl=welcome.lease_ttl
            ),
            DecodeHeartbeat(peer=peer, heartbeat=welcome.heartbeat),
        )
        log.info("decode_linked", peer=peer, address=self._address)
        self._pause = FIRST_PAUSE
        lost: BaseException | None = None
        try:
            await outbound.run(call.write, self._read(peer, call))
        except BaseException as error:
            lost = error
            raise
        finally:
            del self._sinks[peer]
            self._engine.post(DecodeLost(peer=peer))
            self._counter.link_lost("decode", why_lost(lost))
            log.info("decode_unlinked", peer=peer, address=self._address, reason=why_lost(lost))

    async def _read(self, peer: PeerId, call: Call) -> None:
        while True:
            async with asyncio.timeout(SILENCE_TIMEOUT):
                data = await read_message(call.read)
            if data is None:
                return
            self._engine.post(*read_from_decode(data, peer))

    def _forget(self) -> None:
        """Another process lives there now, or nobody is wanted."""
        if self._known is not None:
            self._engine.remove_peer(self._known)
            self._known = None
