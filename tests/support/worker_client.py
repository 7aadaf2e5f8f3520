"""A client of Inference.Stream for integration tests: as small as a router can be, without retries.

async with WorkerClient([prefill.address, decode.address]) as client:
    result = await client.generate([1, 2, 3], max_tokens=8)
"""

import asyncio
import itertools
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc.aio

from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote, RouterOut
from pdcluster_worker.core.ids import RequestId, RequestKey
from pdcluster_worker.core.request import Request, SamplingParams, TokenLogprob
from pdcluster_worker.core.wire import Role
from pdcluster_worker.splitwise.channel import INFERENCE_STREAM, open_channel
from pdcluster_worker.splitwise.inference_codec import decode_worker, encode_router
from pdcluster_worker.splitwise.inference_messages import (
    AbortItem,
    AttachItem,
    PeerRecord,
    RouterBatch,
    RouterHello,
    SubmitItem,
    WorkerHello,
    WorkerState,
)
from pdcluster_worker.splitwise.request_codec import pack_words
from pdcluster_worker.splitwise.tls import TLSIdentity

TIMEOUT = 60.0


@dataclass
class Generation:
    """One request as the client sees it. `tokens` in order of index; `failed` when it ended badly."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    logprobs: dict[int, TokenLogprob] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)
    """Instance id that each token came from first."""
    finished: FinishedNote | None = None
    failed: FailedNote | None = None
    handed_off: HandedOffNote | None = None
    decode: str = ""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)


class WorkerStream:
    """One stream to one worker."""

    def __init__(self, address: str, role: str, identity: TLSIdentity | None) -> None:
        self.channel = open_channel(address, role, identity)
        self.call = self.channel.stream_stream(INFERENCE_STREAM)()
        self.address = address
        self.hello: WorkerHello | None = None
        self.state: WorkerState | None = None
        self.states = 0
        self.handles: dict[int, Generation] = {}
        self.numbers = itertools.count(1)
        self.changed = asyncio.Condition()
        self._writing = asyncio.Lock()

    async def open(self) -> WorkerHello:
        await self.send(RouterBatch(hello=RouterHello(router_id=uuid.uuid4().hex)))
        hello = decode_worker(await self.call.read()).hello
        assert hello is not None
        self.hello = hello
        return hello

    async def send(self, batch: RouterBatch) -> None:
        async with self._writing:
            for message in encode_router(batch, time.monotonic()):
                await self.call.write(message)

    def handle(self, generation: Generation) -> int:
        number = next(self.numbers)
        self.handles[number] = generation
        return number

    async def close(self) -> None:
        self.call.cancel()
        await self.channel.close()


class WorkerClient:
    """Streams to all the addresses; the workers' hellos say which is which."""

    def __init__(
        self, addresses: Sequence[str], roles: Sequence[str] = (), identity: TLSIdentity | None = None
    ) -> None:
        self._addresses = addresses
        self._roles = roles or [""] * len(addresses)
        self._identity = identity
        self.streams: dict[str, WorkerStream] = {}
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "WorkerClient":
        for address, role in zip(self._addresses, self._roles, strict=True):
            stream = WorkerStream(address, role, self._identity)
            hello = await asyncio.wait_for(stream.open(), TIMEOUT)
            self.streams[hello.instance_id] = stream
            self._readers.append(asyncio.create_task(self._read(stream)))
        await self.send_peers()
        if self.of_role(Role.PREFILL) and self.of_role(Role.DECODE):
            for stream in self.of_role(Role.PREFILL):
                await self.wait_state(stream, lambda state: state.kv_peers >= len(self.of_role(Role.DECODE)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for stream in self.streams.values():
            await stream.close()

    async def send_peers(self) -> None:
        records = tuple(
            PeerRecord(name, stream.address, stream.hello.role, stream.hello.revision, stream.hello.layout_hash)
            for name, stream in self.streams.items()
            if stream.hello is not None
        )
        for stream in self.streams.values():
            await stream.send(RouterBatch(peers=records))

    def of_role(self, role: Role) -> list[WorkerStream]:
        return [stream for stream in self.streams.values() if stream.hello is not None and stream.hello.role is role]

    async def wait_state(self, stream: WorkerStream, wanted: object, timeout: float = 20.0) -> None:
        async with asyncio.timeout(timeout), stream.changed:
            await stream.changed.wait_for(lambda: stream.state is not None and wanted(stream.state))  # type: ignore[operator]

    async def start(
        self, prompt: Sequence[int], *, at: WorkerStream | None = None, timeout: float = TIMEOUT, **sampling: object
    ) -> Generation:
        """Submits; greedy unless `temperature` says otherwise."""
        options: dict[str, object] = {"temperature": 0.0, "max_tokens": 8, **sampling}
        request = Request(
            request_id=RequestId(uuid.uuid4().bytes),
            epoch=1,
            tokens=pack_words(list(prompt)),
            prompt_length=len(prompt),
            sampling=SamplingParams(**options),  # type: ignore[arg-type]
            deadline=time.monotonic() + timeout,
        )
        generation = Generation(request)
        entry = at or (self.of_role(Role.PREFILL) + self.of_role(Role.MIXED))[0]
        await entry.send(RouterBatch(submits=(SubmitItem(entry.handle(generation), request),)))
        return generation

    async def generate(self, prompt: Sequence[int], **options: object) -> Generation:
        """Submits and waits for the end."""
        generation = await self.start(prompt, **options)  # type: ignore[arg-type]
        async with asyncio.timeout(TIMEOUT):
            await generation.done.wait()
        return generation

    async def abort(self, generation: Generation) -> None:
        for stream in self.streams.values():
            if generation in stream.handles.values():
                await stream.send(RouterBatch(aborts=(AbortItem(generation.request.key),)))

    async def attach(self, generation: Generation, instance: str, next_index: int = 0) -> None:
        stream = self.streams[instance]
        key = RequestKey(generation.request.request_id, generation.request.epoch)
        await stream.send(RouterBatch(attaches=(AttachItem(stream.handle(generation), key, next_index),)))

    async def _read(self, stream: WorkerStream) -> None:
        try:
            while isinstance(data := await stream.call.read(), bytes):
                batch = decode_worker(data)
                if batch.out is not None:
                    await self._take(stream, batch.out)
                if batch.state is not None:
                    async with stream.changed:
                        stream.state = batch.state
                        stream.states += 1
                        stream.changed.notify_all()
        except grpc.aio.AioRpcError:
            return

    async def _take(self, stream: WorkerStream, out: RouterOut) -> None:
        for reserved in out.reserved:
            generation = stream.handles[reserved.handle]
            generation.decode = reserved.decode
            await self.attach(generation, reserved.decode)
        for entry, (handle, index, token) in enumerate(zip(out.handles, out.indices, out.tokens, strict=True)):
            generation = stream.handles[handle]
            if index == len(generation.tokens):
                generation.tokens.append(token)
                generation.sources.append(stream.hello.instance_id if stream.hello is not None else "")
                if entry in out.logprobs:
                    generation.logprobs[index] = out.logprobs[entry]
            else:
                assert generation.tokens[index] == token, "a delivered token changed, or one is missing"
            generation.news.set()
        for handed in out.handed_off:
            stream.handles[handed.handle].handed_off = handed
        for finished in out.finished:
            stream.handles[finished.handle].finished = finished
            stream.handles[finished.handle].done.set()
        for failed in out.failed:
            stream.handles[failed.handle].failed = failed
            stream.handles[failed.handle].done.set()
