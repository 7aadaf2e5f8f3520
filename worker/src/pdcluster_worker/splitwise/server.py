"""The decode worker's end of links: prefill workers say Hello, then reserve and commit. Lives on the I/O loop."""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from pdcluster_worker.core.effects import ToPrefill
from pdcluster_worker.core.events import PrefillDied, PrefillHeartbeat, PrefillLinked, PrefillLost
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise.engine_port import EnginePort
from pdcluster_worker.splitwise.handshake_codec import decode_hello, encode_welcome
from pdcluster_worker.splitwise.identity import WorkerIdentity
from pdcluster_worker.splitwise.incoming import LinkCounter, ServerContext, read_hello, read_message, why_lost
from pdcluster_worker.splitwise.link_codec import encode_to_prefill, read_from_prefill
from pdcluster_worker.splitwise.link_messages import LinkHello, LinkWelcome
from pdcluster_worker.splitwise.outbound import Outbound

log = structlog.get_logger(__name__)

ENGINE_TIMEOUT = 5.0
"""Seconds for a question to the engine."""
SILENCE_TIMEOUT = 3.0
"""A peer speaks every second; after so long without a word the link counts as lost."""

PrefillSinks = dict[PeerId, Callable[[ToPrefill], None]]


@dataclass(slots=True, eq=False)
class _Link:
    peer: PeerId
    name: str
    outbound: Outbound


class LinkServer:
    """At most one link per prefill process: a second one takes the place of the first."""

    def __init__(
        self,
        identity: WorkerIdentity,
        engine: EnginePort,
        sinks: PrefillSinks,
        counter: LinkCounter,
        lease_ttl: float,
    ) -> None:
        self._identity = identity
        self._engine = engine
        self._sinks = sinks
        self._counter = counter
        self._lease_ttl = lease_ttl
        self._links: dict[PeerId, _Link] = {}
        self._instances: dict[str, PeerId] = {}
        """By pod name: the last process seen under it."""

    async def serve(self, context: ServerContext) -> None:
        """One link, from Hello to its end."""
        hello = decode_hello(await read_hello(context.read), self._identity.layout_hash)
        self._check(hello)
        link = _Link(PeerId(hello.instance_id), hello.name, Outbound())
        link.outbound.push([encode_welcome(await self._welcome(link.peer))])
        self._replace(link)
        self._sinks[link.peer] = lambda out: link.outbound.push(encode_to_prefill(out))
        self._engine.post(
            PrefillLinked(peer=link.peer, ranks=hello.ranks),
            PrefillHeartbeat(peer=link.peer, heartbeat=hello.heartbeat),
        )
        log.info("prefill_linked", peer=link.peer)
        lost: BaseException | None = None
        try:
            await link.outbound.run(context.write, self._read(link, context))
        except TimeoutError as error:
            lost = error
        except BaseException as error:
            lost = error
            raise
        finally:
            self._ended(link, why_lost(lost))

    def pods_gone(self, names: Iterable[str]) -> None:
        """Kubernetes says that these are no more. One that has a link has come back under its name meanwhile."""
        for name in names:
            peer = self._instances.get(name)
            if peer is not None and peer not in self._links:
                del self._instances[name]
                self._engine.post(PrefillDied(peer=peer))
                log.info("prefill_pod_gone", peer=peer, name=name)

    def finish(self) -> None:
        """End every link once what waits on it is written."""
        for link in self._links.values():
            link.outbound.finish()

    async def _read(self, link: _Link, context: ServerContext) -> None:
        while True:
            async with asyncio.timeout(SILENCE_TIMEOUT):
                data = await read_message(context.read)
            if data is None:
                return
            self._engine.post(*read_from_prefill(data, link.peer, time.monotonic()))

    async def _welcome(self, peer: PeerId) -> LinkWelcome:
        async with asyncio.timeout(ENGINE_TIMEOUT):
            heartbeat = await asyncio.wrap_future(self._engine.lease_set(peer))
        me = self._identity
        return LinkWelcome(
            layout_hash=me.layout_hash,
            instance_id=me.instance_id,
            ranks=me.ranks,
            lease_ttl=self._lease_ttl,
            pool_blocks=me.num_blocks,
            heartbeat=heartbeat,
        )

    def _check(self, hello: LinkHello) -> None:
        me = self._identity
        if hello.model != me.model:
            raise ProtocolError(f"model {hello.model!r}; this side serves {me.model!r}", "model")
        if hello.revision != me.revision:
            raise ProtocolError(f"revision {hello.revision!r}; this side is of {me.revision!r}", "revision")
        if len(hello.ranks) != len(me.ranks):
            raise ProtocolError(f"{len(hello.ranks)} ranks; this side has {len(me.ranks)}", "layout")

    def _replace(self, link: _Link) -> None:
        """The link of the same process ends; a process that had the same pod's name is dead."""
        before = self._links.get(link.peer)
        if before is not None:
            self._ended(before, "replaced")
        last = self._instances.get(link.name) if link.name else None
        if last is not None and last != link.peer:
            if last in self._links:
                self._ended(self._links[last], "replaced")
            self._engine.post(PrefillDied(peer=last))
            log.info("prefill_replaced", peer=last, by=link.peer)
        if link.name:
            self._instances[link.name] = link.peer
        self._links[link.peer] = link

    def _ended(self, link: _Link, reason: str) -> None:
        """However it ends; the first call counts."""
        link.outbound.finish()
        if self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._sinks.pop(link.peer, None)
            self._engine.post(PrefillLost(peer=link.peer))
            self._counter.link_lost("prefill", reason)
            log.info("prefill_unlinked", peer=link.peer, reason=reason)
