"""Both ends of Splitwise.Link, and Inference.Stream, over loopback among fake engines."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import pytest
from worker_fakes import FakeEngine, FakeRecorder

from pdcluster_worker.core import effects, events
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestId, RequestKey, StreamId
from pdcluster_worker.core.wire import Heartbeat, RankMetadata, Role
from pdcluster_worker.engine.inference_service import InferenceService
from pdcluster_worker.engine.ports import Outgoing
from pdcluster_worker.engine.switchboard import Switchboard
from pdcluster_worker.errors import TransportError
from pdcluster_worker.splitwise.channel import INFERENCE_STREAM, bind, make_server, open_channel
from pdcluster_worker.splitwise.client import DecodeLinks
from pdcluster_worker.splitwise.identity import WorkerIdentity
from pdcluster_worker.splitwise.incoming import ServerContext, guarded
from pdcluster_worker.splitwise.inference_codec import encode_router
from pdcluster_worker.splitwise.inference_messages import PeerRecord, RouterBatch, RouterHello
from pdcluster_worker.splitwise.limits import MAX_MESSAGE_BYTES
from pdcluster_worker.splitwise.server import LinkServer

KEY = RequestKey(RequestId(b"k" * 16), 1)
RANKS = (RankMetadata(0, "agent", b"meta", (), 8, 64),)
STREAM = StreamId(1)
PATIENCE = 20.0


def identity(instance: str, role: Role, name: str = "") -> WorkerIdentity:
    return WorkerIdentity(
        PeerId(instance), name or instance, role, "r", "m", "hash", 128, 1000, 16, 8, RANKS, "127.0.0.1:1"
    )


async def until(condition: Callable[[], bool]) -> None:
    """Looks again whenever the loop has done something."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.005)


class DecodeEnd:
    """A decode worker's server at one port, whose process may be replaced."""

    def __init__(self, instance: str) -> None:
        self.engine = FakeEngine()
        self.errors = FakeRecorder()
        self.board = Switchboard()
        self.links = LinkServer(identity(instance, Role.DECODE), self.engine, self.board.prefills, self.errors, 10.0)
        self.server = make_server()
        self.port = 0

    async def start(self, port: int = 0) -> "DecodeEnd":
        serve_in(self.server, "pdcluster.v1.Splitwise", "Link", self._serve)
        self.port = bind(self.server, "127.0.0.1", port, None)
        await self.server.start()
        return self

    async def _serve(self, _requests: object, context: ServerContext) -> None:
        await guarded(context, "prefill", self.errors, self.links.serve(context))

    async def beat(self) -> None:
        """Heartbeats, as a core would make them."""
        while True:
            for peer in list(self.board.prefills):
                self.board.deliver(Outgoing(prefills={peer: effects.ToPrefill(heartbeat=Heartbeat())}))
            await asyncio.sleep(0.5)

    async def stop(self) -> None:
        await self.server.stop(0)


class PrefillEnd:
    def __init__(self, instance: str, name: str = "") -> None:
        self.engine = FakeEngine()
        self.errors = FakeRecorder()
        self.board = Switchboard()
        self.links = DecodeLinks(
            identity(instance, Role.PREFILL, name),
            self.engine,
            self.board.decodes,
            None,
            self.errors,
            MAX_MESSAGE_BYTES,
        )

    def know(self, *ends: tuple[str, int], stream: StreamId = STREAM) -> None:
        records = [PeerRecord(instance, f"127.0.0.1:{port}", Role.DECODE, "r", "hash") for instance, port in ends]
        self.links.peers_changed(stream, records)

    async def beat(self) -> None:
        while True:
            for peer in list(self.board.decodes):
                self.board.deliver(Outgoing(decodes={peer: effects.ToDecode(heartbeat=Heartbeat())}))
            await asyncio.sleep(0.5)


def serve_in(server: grpc.aio.Server, service: str, method: str, handler: Callable[..., Awaitable[None]]) -> None:
    handlers = {method: grpc.stream_stream_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))


@contextlib.asynccontextmanager
async def beating(*ends: DecodeEnd | PrefillEnd) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(end.beat()) for end in ends]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            await (end.links.close() if isinstance(end, PrefillEnd) else end.stop())


def test_a_link_carries_both_ways() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        async with beating(decode, prefill):
            prefill.know(("d1", decode.port))
            await until(lambda: bool(prefill.engine.of(events.DecodeLinked)))
            assert prefill.engine.added == ["d1"], "the executor knew the peer first"
            linked = prefill.engine.of(events.DecodeLinked)[0]
            assert linked == events.DecodeLinked(peer=PeerId("d1"), pool_blocks=8, ranks=1, lease_ttl=10.0)
            await until(lambda: bool(decode.engine.of(events.PrefillLinked)))
            assert decode.engine.events[0] == events.PrefillLinked(peer=PeerId("p1"), ranks=RANKS)
            reserve = effects.ReserveOut(KEY, 10, 2, b"", time.monotonic() + 5, False)
            prefill.board.deliver(Outgoing(decodes={PeerId("d1"): effects.ToDecode(reserves=[reserve])}))
            await until(lambda: bool(decode.engine.of(events.ReserveAsked)))
            grant = effects.GrantOut(KEY, LeaseId(1), 10.0, 0, (3, 4))
            decode.board.deliver(Outgoing(prefills={PeerId("p1"): effects.ToPrefill(grants=[grant])}))
            await until(lambda: bool(prefill.engine.of(events.Granted)))
        assert not decode.board.prefills
        assert not prefill.board.decodes
        assert prefill.engine.of(events.DecodeLost)

    asyncio.run(main())


def test_a_restarted_decode_worker_is_a_new_peer() -> None:
    async def main() -> None:
        first, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        async with beating(first, prefill):
            prefill.know(("d1", first.port))
            await until(lambda: bool(prefill.engine.of(events.DecodeLinked)))
            await first.stop()
            await until(lambda: bool(prefill.engine.of(events.DecodeLost)))
            second = await DecodeEnd("d2").start(first.port)
            async with beating(second):
                prefill.know(("d2", second.port))
                await until(lambda: len(prefill.engine.of(events.DecodeLinked)) == 2)
                assert prefill.engine.added == ["d1", "d2"]
                assert prefill.engine.removed == ["d1"], "its memory is nobody's any more"

    asyncio.run(main())


def test_the_same_process_is_introduced_to_the_executor_once() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        async with beating(decode, prefill):
            prefill.know(("d1", decode.port))
            await until(lambda: bool(prefill.engine.of(events.DecodeLinked)))
            decode.links.finish()
            await until(lambda: len(prefill.engine.of(events.DecodeLinked)) == 2)
            assert prefill.engine.added == ["d1"]
            assert len(prefill.engine.of(events.DecodeLost)) == 1
            await until(lambda: len(decode.engine.of(events.PrefillLinked)) == 2)
            assert len(decode.engine.of(events.PrefillLost)) == 1
            assert not decode.engine.of(events.PrefillDied), "it is the same process"

    asyncio.run(main())


def test_a_new_process_under_a_pods_name_proves_the_old_one_dead() -> None:
    async def main() -> None:
        decode, old, new = await DecodeEnd("d1").start(), PrefillEnd("p1", "pod-0"), PrefillEnd("p2", "pod-0")
        async with beating(decode, old, new):
            old.know(("d1", decode.port))
            await until(lambda: bool(decode.engine.of(events.PrefillLinked)))
            new.know(("d1", decode.port))
            await until(lambda: len(decode.engine.of(events.PrefillLinked)) == 2)
            kinds = [type(event) for event in decode.engine.events if not isinstance(event, events.PrefillHeartbeat)]
            assert kinds[:4] == [
                events.PrefillLinked,
                events.PrefillLost,
                events.PrefillDied,
                events.PrefillLinked,
            ]
            await old.links.close()

    asyncio.run(main())


def test_a_pod_that_is_gone_is_proven_dead_unless_it_is_linked() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1", "pod-0")
        async with beating(decode, prefill):
            prefill.know(("d1", decode.port))
            await until(lambda: bool(decode.engine.of(events.PrefillLinked)))
            decode.links.pods_gone(["pod-0", "pod-1"])
            assert not decode.engine.of(events.PrefillDied), "it has come back under its name"
            await prefill.links.close()
            await until(lambda: bool(decode.engine.of(events.PrefillLost)))
            decode.links.pods_gone(["pod-0"])
            decode.links.pods_gone(["pod-0"])
            assert [event.peer for event in decode.engine.of(events.PrefillDied)] == ["p1"]

    asyncio.run(main())


def test_another_pods_link_proves_nothing() -> None:
    async def main() -> None:
        decode, one, two = await DecodeEnd("d1").start(), PrefillEnd("p1", "pod-0"), PrefillEnd("p2", "pod-1")
        async with beating(decode, one, two):
            for end in (one, two):
                end.know(("d1", decode.port))
            await until(lambda: len(decode.engine.of(events.PrefillLinked)) == 2)
            assert not decode.engine.of(events.PrefillDied)

    asyncio.run(main())


def test_an_executor_that_cannot_reach_the_peer_means_no_link() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        prefill.engine.add_error = TransportError("no route")
        async with beating(decode, prefill):
            prefill.know(("d1", decode.port))
            await until(lambda: len(prefill.engine.added) >= 2)
            assert not prefill.engine.of(events.DecodeLinked)
            prefill.engine.add_error = None
            await until(lambda: bool(prefill.engine.of(events.DecodeLinked)))

    asyncio.run(main())


def test_a_silent_decode_worker_is_lost_and_tried_again() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        async with beating(prefill):
            prefill.know(("d1", decode.port))
            await until(lambda: bool(prefill.engine.of(events.DecodeLost)))
            lost = list(prefill.errors.lost)
            async with beating(decode):
                await until(lambda: len(prefill.engine.of(events.DecodeLinked)) >= 2)
            assert lost == [("decode", "silent")]

    asyncio.run(main())


def test_an_unreachable_address_holds_up_no_other() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        async with beating(decode, prefill):
            prefill.know(("nobody", 1), ("d1", decode.port))
            await until(lambda: bool(prefill.engine.of(events.DecodeLinked)))

    asyncio.run(main())


def test_garbage_on_a_link_ends_it_and_is_counted() -> None:
    async def main() -> None:
        decode, prefill = await DecodeEnd("d1").start(), PrefillEnd("p1")
        async with beating(decode, prefill):
            prefill.know(("d1", decode.port))
            await until(lambda: bool(decode.engine.of(events.PrefillLinked)))
            bad = effects.GrantOut(RequestKey(RequestId(b"short"), 1), LeaseId(1), 1.0, 0, ())
            decode.board.deliver(Outgoing(prefills={PeerId("p1"): effects.ToPrefill(grants=[bad])}))
            await until(lambda: bool(prefill.engine.of(events.DecodeLost)))
            assert prefill.errors.errors == [("decode", "malformed")]
            assert prefill.errors.lost == [("decode", "protocol")]

    asyncio.run(main())


@pytest.mark.parametrize("reads", [True, False])
def test_a_router_that_does_not_read_is_disconnected(reads: bool) -> None:
    """It gets 256 KiB in flight at most; everybody else is served."""

    async def main() -> None:
        engine, board, errors = FakeEngine(), Switchboard(), FakeRecorder()
        service = InferenceService(
            identity("w", Role.MIXED),
            engine,
            board,
            lambda _stream, _peers: None,
            lambda _gone: None,
            max_pending_bytes=1 << 18,
        )
        server = make_server()
        ended = asyncio.Event()

        async def serve(_requests: object, context: ServerContext) -> None:
            try:
                await guarded(context, "router", errors, service.serve(context))
            finally:
                ended.set()

        serve_in(server, "pdcluster.v1.Inference", "Stream", serve)
        port = bind(server, "127.0.0.1", 0, None)
        await server.start()
        async with open_channel(f"127.0.0.1:{port}", "mixed", None) as channel:
            call = channel.stream_stream(INFERENCE_STREAM)()
            for message in encode_router(RouterBatch(hello=RouterHello("r")), 0.0):
                await call.write(message)
            await until(lambda: bool(board.routers))
            heard = 0
            for _ in range(100):
                out = effects.RouterOut(handles=[1] * 3000, indices=[1 << 31] * 3000, tokens=[1 << 31] * 3000)
                board.deliver(Outgoing(routers=dict.fromkeys(board.routers, out)))
                await asyncio.sleep(0)
                while reads and heard < 100 and isinstance(await asyncio.wait_for(call.read(), 5), bytes):
                    heard += 1
                    break
            if reads:
                assert not ended.is_set()
            else:
                await until(lambda: not board.routers)
                assert engine.of(events.StreamClosed)
                await asyncio.wait_for(ended.wait(), 10)
            call.cancel()
        await server.stop(0)

    asyncio.run(main())
