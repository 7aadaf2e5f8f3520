"""A worker that speaks Inference.Stream over real gRPC and follows a script: for tests of the router alone.

Tokens are a function of the tokens before them, so that a request that was resubmitted must go on as if nothing had
happened. A prefill fake hands over to the decode fakes that its `peers` name. Runs on the loop that starts it.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import grpc.aio

from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote, ReservedNote, RouterOut
from pdcluster_worker.core.ids import PeerId, RequestKey
from pdcluster_worker.core.request import Request, TokenLogprob
from pdcluster_worker.core.wire import FailureCode, Role, Stages
from pdcluster_worker.splitwise.channel import bind, make_server
from pdcluster_worker.splitwise.inference_codec import decode_router, encode_worker
from pdcluster_worker.splitwise.inference_messages import PeerRecord, RouterBatch, WorkerBatch, WorkerHello, WorkerState
from pdcluster_worker.splitwise.request_codec import unpack_words

VOCABULARY = 512


def next_token(tokens: Sequence[int], seed: int) -> int:
    """Printable single bytes of the test tokenizer, never a special token."""
    value = seed % 1009 + len(tokens)
    for token in tokens[-4:]:
        value = (value * 31 + token) % 1_000_003
    return 70 + value % 26


def expected_tokens(prompt: Sequence[int], seed: int, count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(next_token(tokens, seed))
    return tokens[len(prompt) :]


@dataclass
class Held:
    """A request here. `outputs` holds what is known of the whole output, by index."""

    request: Request
    stream: "Stream | None" = None
    handle: int = 0
    next_index: int = 0
    tokens: list[int] = field(default_factory=list)
    task: "asyncio.Task[None] | None" = None
    done: FinishedNote | None = None

    @property
    def known(self) -> int:
        return len(self.tokens) - self.request.prompt_length


class Stream:
    """One router's stream."""

    def __init__(self) -> None:
        self.outgoing: asyncio.Queue[list[bytes] | None] = asyncio.Queue()

    def say(self, out: RouterOut | None = None, state: WorkerState | None = None) -> None:
        self.outgoing.put_nowait(encode_worker(WorkerBatch(out=out, state=state)))

    def close(self) -> None:
        self.outgoing.put_nowait(None)


@dataclass
class Script:
    """What the worker does otherwise than well. Each function is asked with the request before the step."""

    pace: float = 0.0
    """Seconds between tokens."""
    refuse: Callable[[Request], FailedNote | None] = lambda request: None
    fail_after: Callable[[Request], tuple[int, FailedNote] | None] = lambda request: None
    """Fails once so many output tokens are known."""
    hold: asyncio.Event | None = None
    """A prefill worker does not begin before it is set."""
    hold_commit: asyncio.Event | None = None
    """After the first token, before the hand-over."""
    choose: Callable[[Request, Sequence[int]], int | None] = lambda request, tokens: None
    """The next token, when it is to be another than the function's."""


class FakeWorker:
    def __init__(self, role: Role, name: str, directory: "dict[str, FakeWorker]", script: Script | None = None) -> None:
        self.role = role
        self.name = name
        self.script = script or Script()
        self.instance_id = ""
        self.address = ""
        self.model = "fake"
        self.revision = ""
        self.layout_hash = "layout"
        self.max_model_length = 4096
        self.pool_tokens = 8192
        self.state = WorkerState(prefill_tokens_per_second=1000.0, kv_peers=1, ready=True)
        self.held: dict[RequestKey, Held] = {}
        self.waiting_attach: dict[RequestKey, tuple[Stream, int, int]] = {}
        self.leases: set[RequestKey] = set()
        self.received: list[RouterBatch] = []
        self.submitted: list[Request] = []
        self.aborted: list[RequestKey | int] = []
        self.peers: tuple[PeerRecord, ...] = ()
        self.streams: list[Stream] = []
        self._directory = directory
        self._server: grpc.aio.Server | None = None
        self._port = 0

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """A new process: a new instance id, at the same port when it ran before."""
        self.instance_id = uuid.uuid4().hex
        self._directory[self.instance_id] = self
        self._server = make_server()
        handler = grpc.stream_stream_rpc_method_handler(self._stream)
        handlers = {"Stream": handler}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("pdcluster.v1.Inference", handlers),)
        )
        self._port = bind(self._server, "127.0.0.1", self._port, None)
        self.address = f"127.0.0.1:{self._port}"
        await self._server.start()

    async def kill(self) -> None:
        """As SIGKILL: everything held is gone, streams break, nobody listens any more."""
        self._directory.pop(self.instance_id, None)
        for held in self.held.values():
            if held.task is not None:
                held.task.cancel()
        self.held.clear()
        self.leases.clear()
        self.waiting_attach.clear()
        await self.break_streams()
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def break_streams(self) -> None:
        """The network hiccups; the process lives on."""
        for stream in self.streams:
            stream.close()
        self.streams.clear()

    def say_state(self, state: WorkerState) -> None:
        self.state = state
        for stream in self.streams:
            stream.say(state=state)

    # --- the stream ---------------------------------------------------------------------------------

    async def _stream(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        stream = Stream()
        reader = asyncio.create_task(self._read(requests, stream))
        self.streams.append(stream)
        hello = WorkerHello(
            instance_id=self.instance_id,
            name=self.name,
            role=self.role,
            revision=self.revision,
            layout_hash=self.layout_hash,
            model=self.model,
            max_model_length=self.max_model_length,
            vocab_size=VOCABULARY,
            block_size=16,
            pool_tokens=self.pool_tokens,
        )
        for message in encode_worker(WorkerBatch(hello=hello)):
            yield message
        stream.say(state=self.state)
        try:
            while (messages := await stream.outgoing.get()) is not None:
                for message in messages:
                    yield message
        finally:
            reader.cancel()
            for held in self.held.values():
                if held.stream is stream:
                    held.stream = None

    async def _read(self, requests: AsyncIterator[bytes], stream: Stream) -> None:
        async for data in requests:
            batch = decode_router(data, asyncio.get_running_loop().time())
            self.received.append(batch)
            if batch.peers is not None:
                self.peers = batch.peers
            for submit in batch.submits:
                self._submit(stream, submit.handle, submit.request)
            for attach in batch.attaches:
                self._attach(stream, attach.handle, attach.key, attach.next_index, attach.prefill_lost)
            for abort in batch.aborts:
                self.aborted.append(abort.key if abort.key is not None else abort.handle)
                if abort.key is not None:
                    self._drop(abort.key)

    def _submit(self, stream: Stream, handle: int, request: Request) -> None:
        self.submitted.append(request)
        refusal = self.script.refuse(request)
        if refusal is not None:
            stream.say(RouterOut(failed=[_with_handle(refusal, handle)]))
            return
        held = Held(request, stream, handle, tokens=list(unpack_words(request.tokens)))
        held.next_index = held.known
        self.held[request.key] = held
        work = self._prefill(held) if self.role is Role.PREFILL else self._generate(held)
        held.task = asyncio.create_task(work)

    def _attach(self, stream: Stream, handle: int, key: RequestKey, next_index: int, prefill_lost: bool) -> None:
        held = self.held.get(key)
        if held is not None:
            held.stream, held.handle, held.next_index = stream, handle, next_index
            self._flush(held)
        elif key in self.leases and not prefill_lost:
            self.waiting_attach[key] = (stream, handle, next_index)
        else:
            self.leases.discard(key)
            stream.say(RouterOut(failed=[FailedNote(handle, FailureCode.UNKNOWN_REQUEST, "unknown request")]))

    def _drop(self, key: RequestKey) -> None:
        held = self.held.pop(key, None)
        if held is not None and held.task is not None:
            held.task.cancel()
        self.leases.discard(key)
        self.waiting_attach.pop(key, None)

    # --- work ---------------------------------------------------------------------------------------

    async def _prefill(self, held: Held) -> None:
        """Reserve at a decode worker, make the first token, hand over."""
        key = held.request.key
        if self.script.hold is not None:
            await self.script.hold.wait()
        decode = next(
            (self._directory[peer.instance_id] for peer in self.peers if peer.instance_id in self._directory), None
        )
        if decode is None:
            self._say(held, RouterOut(failed=[FailedNote(held.handle, FailureCode.NO_DECODE, "no decode worker", 0.2)]))
            self._drop(key)
            return
        decode.leases.add(key)
        self._say(held, RouterOut(reserved=[ReservedNote(held.handle, PeerId(decode.instance_id), 0.001)]))
        if await self._step(held):
            decode.leases.discard(key)
            return
        if self.script.hold_commit is not None:
            await self.script.hold_commit.wait()
        if not decode.commit(held.request, held.tokens):
            self._say(
                held, RouterOut(failed=[FailedNote(held.handle, FailureCode.NO_DECODE, "decode worker gone", 0.2)])
            )
            self._drop(key)
            return
        stages = Stages(reserve=0.001, prefill=0.002, transfer=0.003, cached_tokens=0, transferred_bytes=4096)
        self._say(held, RouterOut(handed_off=[HandedOffNote(held.handle, PeerId(decode.instance_id), stages)]))
        self.held.pop(key, None)

    def commit(self, request: Request, tokens: Sequence[int]) -> bool:
        """The decode side of a hand-over."""
        if request.key not in self.leases:
            return False
        self.leases.discard(request.key)
        held = Held(request, tokens=list(tokens))
        self.held[request.key] = held
        if request.key in self.waiting_attach:
            held.stream, held.handle, held.next_index = self.waiting_attach.pop(request.key)
        held.task = asyncio.create_task(self._generate(held))
        return True

    async def _generate(self, held: Held) -> None:
        self._flush(held)
        while not await self._step(held):
            await asyncio.sleep(self.script.pace)

    async def _step(self, held: Held) -> bool:
        """One more token. True when the request has ended here."""
        trouble = self.script.fail_after(held.request)
        if trouble is not None and held.known >= trouble[0]:
            self._say(held, RouterOut(failed=[_with_handle(trouble[1], held.handle)]))
            self.held.pop(held.request.key, None)
            return True
        sampling = held.request.sampling
        chosen = self.script.choose(held.request, held.tokens)
        token = chosen if chosen is not None else next_token(held.tokens, sampling.seed)
        held.tokens.append(token)
        stopped = token in sampling.stop_token_ids and held.known > sampling.min_tokens
        if stopped or held.known >= sampling.max_tokens:
            reason = "stop" if stopped else "length"
            held.done = FinishedNote(held.handle, reason, held.known, token if stopped else None, Stages(decode=0.004))
        self._flush(held)
        return held.done is not None

    def _flush(self, held: Held) -> None:
        """Says what the router lacks."""
        if held.stream is None:
            return
        out = RouterOut()
        for index in range(held.next_index, held.known):
            entry = len(out.tokens)
            out.handles.append(held.handle)
            out.indices.append(index)
            out.tokens.append(token := held.tokens[held.request.prompt_length + index])
            count = held.request.sampling.logprobs
            if count >= 0:
                tops = tuple((token + offset) % VOCABULARY for offset in range(count))
                out.logprobs[entry] = TokenLogprob(-0.5, tops, tuple(-0.5 - offset for offset in range(count)))
        held.next_index = max(held.next_index, held.known)
        if held.done is not None:
            done = held.done
            out.finished.append(
                FinishedNote(held.handle, done.reason, done.output_tokens, done.stop_token, done.stages)
            )
            self.held.pop(held.request.key, None)
        if out.tokens or out.finished:
            held.stream.say(out)

    @staticmethod
    def _say(held: Held, out: RouterOut) -> None:
        if held.stream is not None:
            held.stream.say(out)


def _with_handle(note: FailedNote, handle: int) -> FailedNote:
    return FailedNote(handle, note.code, note.reason, note.retry_after, note.was_running)
