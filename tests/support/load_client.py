"""A load driver that speaks `Inference.Stream` as a router does, with none of a router's HTTP.

It submits to prefill (or mixed) workers, keeps so many requests going, attaches at the decode worker when it hears
Reserved, resubmits with epoch + 1 what a dead or refusing worker held, and keeps the books in a Ledger. All on one
asyncio loop; run it in a process that measures nothing else.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from load_ledger import Ledger
from load_link import WorkerLink

from pdcluster_proto.v1 import request_pb2 as request_types
from pdcluster_proto.v1.inference_pb2 import Abort, Attach, Failed, Peer, Peers, RouterMessage, Submit, WorkerMessage

RETRIED = frozenset(
    (
        request_types.FAILURE_CODE_PREEMPTED,
        request_types.FAILURE_CODE_DRAINING,
        request_types.FAILURE_CODE_UNKNOWN_REQUEST,
        request_types.FAILURE_CODE_EXECUTOR_LOST,
        request_types.FAILURE_CODE_OVERLOADED,
    )
)
MAX_EPOCHS = 8


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """`prompt` is little-endian uint32."""

    prompt: bytes
    max_tokens: int
    seed: int = 0
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class LoadWorker:
    """`peer_address` is where other workers reach it, if not at `address`: a proxy, say."""

    role: str
    address: str
    peer_address: str = ""


@dataclass(slots=True)
class Life:
    """Where a request is: its handle names this epoch of it on every stream."""

    request_id: bytes
    epoch: int = 0
    handle: int = -1
    prefill: WorkerLink | None = None
    """None once handed off."""
    decode: WorkerLink | None = None


Chooser = Callable[[int, Sequence[WorkerLink]], WorkerLink]


class LoadClient:
    """Make it on a running loop; `connect`, `run` once, `close`."""

    def __init__(
        self,
        workers: Sequence[LoadWorker],
        requests: Sequence[LoadRequest],
        concurrency: int,
        keep_tokens: bool = False,
        timeout: float = 600.0,
        choose: Chooser | None = None,
    ) -> None:
        """`choose(request, links)` picks the prefill worker; by default the one with the fewest requests."""
        self.ledger = Ledger(len(requests), MAX_EPOCHS * len(requests), keep_tokens)
        self.links = [WorkerLink(worker.address, self._hello, self._message, self._lost) for worker in workers]
        self.links_changed = asyncio.Event()
        self._workers = list(workers)
        self._requests = requests
        self._concurrency = concurrency
        self._timeout = timeout
        self._choose = choose or self._least_busy
        self._lives = [Life(uuid.uuid4().bytes) for _ in range(len(requests))]
        self._next_handle = 0
        self._unsent = iter(range(len(requests)))
        self._homeless: list[int] = []
        self._busy = dict.fromkeys(self.links, 0)
        self._running: set[int] = set()
        self._done = asyncio.Event()

    async def connect(self, timeout: float = 30.0, kv_peers: int | None = None) -> None:
        """Returns when every stream is up and each prefill worker can move KV to `kv_peers` decode workers (all)."""
        decodes = sum(worker.role == "decode" for worker in self._workers)
        expected = decodes if kv_peers is None else kv_peers
        async with asyncio.timeout(timeout):
            while not self._is_connected(expected):
                await self.links_changed.wait()
                self.links_changed.clear()

    async def run(self) -> Ledger:
        """Submits all requests, `concurrency` at a time; returns when each has ended or at the time-out."""
        self._fill()
        try:
            async with asyncio.timeout(self._timeout):
                await self._done.wait()
        except TimeoutError:
            for request in self.unfinished():
                self.ledger.failures.setdefault(request, "not finished in time")
        return self.ledger

    def link_to(self, worker: LoadWorker) -> WorkerLink:
        return self.links[self._workers.index(worker)]

    async def close(self) -> None:
        """Lets what was sent last leave, then ends the streams."""
        await asyncio.sleep(0)
        await asyncio.gather(*(link.close() for link in self.links))

    def unfinished(self) -> Iterator[int]:
        """Requests that were submitted and have not ended."""
        return iter(self._running)

    def stop_submitting(self) -> None:
        """What runs goes on; `run` returns when it has ended."""
        self._unsent = iter(())
        if not self._running:
            self._done.set()

    def abort_all(self) -> None:
        """Give up everything that runs; nothing more is submitted."""
        self.stop_submitting()
        self._homeless.clear()
        for request in list(self.unfinished()):
            self._abort(self._lives[request])
            self._end(request)

    # --- what workers say ---------------------------------------------------------------------------

    def _hello(self, link: WorkerLink) -> None:
        self._push_peers()
        self.links_changed.set()
        homeless, self._homeless = self._homeless, []
        for request in homeless:
            self._submit(request)

    def _lost(self, link: WorkerLink) -> None:
        self.links_changed.set()
        self._busy[link] = 0
        for request in list(self.unfinished()):
            life = self._lives[request]
            if link is life.prefill or link is life.decode:
                self._resubmit(request)

    def _message(self, link: WorkerLink, message: WorkerMessage) -> None:
        now = time.monotonic()
        if message.HasField("tokens"):
            self.ledger.add(message.tokens, now)
        for reserved in message.reserved:
            self._reserved(reserved.handle, reserved.decode_instance_id, now)
        for handed_off in message.handed_off:
            self._handed_off(handed_off.handle)
        for finished in message.finished:
            request = self.ledger.owner(finished.handle)
            if request >= 0:
                self._finished(request, link, finished.output_tokens, now)
        for failed in message.failed:
            self._failed(failed)
        if message.HasField("state"):
            self.links_changed.set()
        if message.finished or message.failed:
            self._fill()

    def _reserved(self, handle: int, instance_id: str, now: float) -> None:
        request = self.ledger.owner(handle)
        if request < 0:
            return
        life = self._lives[request]
        self.ledger.reserved[request] = now
        for link in self.links:
            if link.hello is not None and link.hello.instance_id == instance_id:
                life.decode = link
                attach = Attach(
                    handle=handle,
                    request_id=life.request_id,
                    epoch=life.epoch,
                    next_index=int(self.ledger.received[request]),
                )
                link.send(RouterMessage(attaches=[attach]))

    def _handed_off(self, handle: int) -> None:
        request = self.ledger.owner(handle)
        if request < 0:
            return
        self._leave_prefill(self._lives[request])
        if self._lives[request].decode is None:
            self._resubmit(request)

    def _finished(self, request: int, link: WorkerLink, output_tokens: int, now: float) -> None:
        if output_tokens != self.ledger.received[request]:
            self.ledger.failures[request] = f"{self.ledger.received[request]} tokens came of {output_tokens}"
        self.ledger.finished[request] = now
        self.ledger.decoded_by[request] = self.links.index(link)
        self._end(request)

    def _failed(self, failed: Failed) -> None:
        request = self.ledger.owner(failed.handle)
        if request < 0:
            return
        if failed.code in RETRIED and self._lives[request].epoch < MAX_EPOCHS:
            self._resubmit(request)
        else:
            self.ledger.failures[request] = f"{request_types.FailureCode.Name(failed.code)}: {failed.reason}"
            self._end(request)

    # --- what the driver does -----------------------------------------------------------------------

    def _fill(self) -> None:
        while len(self._running) < self._concurrency:
            request = next(self._unsent, None)
            if request is None:
                break
            self._running.add(request)
            self.ledger.submitted[request] = time.monotonic()
            self._submit(request)
        if not self._running:
            self._done.set()

    def _submit(self, request: int) -> None:
        links = [link for link, worker in zip(self.links, self._workers, strict=True) if worker.role != "decode"]
        links = [link for link in links if link.hello is not None]
        if not links:
            self._homeless.append(request)
            return
        life = self._lives[request]
        life.epoch += 1
        life.handle = self._next_handle
        self._next_handle += 1
        self.ledger.own(life.handle, request)
        life.prefill = self._choose(request, links)
        self._busy[life.prefill] += 1
        submit = Submit(handle=life.handle, request=self._wire_request(request, life))
        life.prefill.send(RouterMessage(submits=[submit]))

    def _wire_request(self, request: int, life: Life) -> request_types.Request:
        load = self._requests[request]
        tokens = load.prompt
        if life.epoch > 1 and self.ledger.tokens is not None:
            tokens += b"".join(token.to_bytes(4, "little") for token in self.ledger.tokens[request])
        return request_types.Request(
            request_id=life.request_id,
            epoch=life.epoch,
            tokens=tokens,
            prompt_length=len(load.prompt) // 4,
            sampling=request_types.SamplingParams(
                temperature=load.temperature,
                top_p=1.0,
                repetition_penalty=1.0,
                seed=load.seed,
                logprobs=-1,
                max_tokens=load.max_tokens,
                ignore_eos=True,
            ),
            deadline_ms=int(self._timeout * 1000),
        )

    def _resubmit(self, request: int) -> None:
        if self.ledger.tokens is None and self.ledger.received[request]:
            self.ledger.failures[request] = "lost after its first token, and its tokens were not kept"
            self._end(request)
            return
        self.ledger.resubmissions += 1
        self._abort(self._lives[request])
        self._submit(request)

    def _abort(self, life: Life) -> None:
        self.ledger.disown(life.handle)
        abort = RouterMessage(aborts=[Abort(request_id=life.request_id, epoch=life.epoch)])
        for link in (life.prefill, life.decode):
            if link is not None:
                link.send(abort)
        self._leave_prefill(life)
        life.decode = None

    def _end(self, request: int) -> None:
        life = self._lives[request]
        self.ledger.disown(life.handle)
        self._leave_prefill(life)
        life.decode = None
        self._running.discard(request)
        if not self._running:
            self._fill()

    def _leave_prefill(self, life: Life) -> None:
        if life.prefill is not None:
            self._busy[life.prefill] -= 1
            life.prefill = None

    def _least_busy(self, request: int, links: Sequence[WorkerLink]) -> WorkerLink:
        return min(links, key=self._busy.__getitem__)

    def _push_peers(self) -> None:
        peers = [
            Peer(
                instance_id=link.hello.instance_id,
                address=worker.peer_address or worker.address,
                role=link.hello.role,
                revision=link.hello.revision,
                layout_hash=link.hello.layout_hash,
            )
            for link, worker in zip(self.links, self._workers, strict=True)
            if link.hello is not None
        ]
        for link, worker in zip(self.links, self._workers, strict=True):
            if worker.role == "prefill":
                link.send(RouterMessage(peers=Peers(peers=peers)))

    def _is_connected(self, kv_peers: int) -> bool:
        return all(
            link.hello is not None and (worker.role != "prefill" or link.kv_peers >= kv_peers)
            for link, worker in zip(self.links, self._workers, strict=True)
        )
