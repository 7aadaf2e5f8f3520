"""One core with a fake executor and one router stream, driven by hand: for tests of a single worker."""

from core_executor import FakeExecutor
from core_requests import prepared

from pdcluster_worker.core import events
from pdcluster_worker.core.config import CoreConfig
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote, Outbox
from pdcluster_worker.core.ids import StreamId
from pdcluster_worker.core.request import Request

STREAM = StreamId(1)


class LoneWorker:
    """Collects everything that leaves; `step` runs the oldest plan, `run` all until none comes."""

    def __init__(self, config: CoreConfig) -> None:
        self.config = config
        self.now = 0.0
        self.core = Core(config, self.now)
        self.executor = FakeExecutor(config.num_blocks, config.block_size)
        self.outboxes: list[Outbox] = []
        self.plans: list = []
        self.tokens: dict[int, list[int]] = {}
        self.notes: dict[int, FinishedNote | FailedNote | HandedOffNote] = {}
        self.reserved: list = []
        self.core.handle(events.StreamOpened(stream=STREAM), self.now)

    def submit(self, request: Request, handle: int, stream: StreamId = STREAM) -> None:
        self.handle(events.Submitted(stream=stream, handle=handle, request=request))

    def handle(self, *batch: events.Event) -> Outbox:
        """Handle a batch and take the outbox; requests to prepare are prepared at once."""
        for event in batch:
            self.core.handle(event, self.now)
        outbox = self.core.take(self.now)
        self.keep(outbox)
        for request in outbox.prepare:
            self.handle(prepared(request, self.config.block_size))
        return outbox

    def pass_time(self, seconds: float) -> Outbox:
        self.now += seconds
        return self.handle()

    def keep(self, outbox: Outbox) -> None:
        self.outboxes.append(outbox)
        self.plans.extend(outbox.plans)
        self.executor.transfers.extend(outbox.transfers)
        for out in outbox.routers.values():
            for handle, index, token in zip(out.handles, out.indices, out.tokens, strict=True):
                stream = self.tokens.setdefault(handle, [])
                if index == len(stream):
                    stream.append(token)
                else:
                    assert stream[index : index + 1] in ([], [token]), "a delivered token changed"
            for note in (*out.finished, *out.failed, *out.handed_off):
                assert note.handle not in self.notes, "a second end of a request"
                self.notes[note.handle] = note
            self.reserved.extend(out.reserved)

    def step(self) -> Outbox:
        done = self.executor.run(self.plans.pop(0))
        self.now += 0.01
        return self.handle(done)

    def run(self, limit: int = 1000) -> None:
        while self.plans and limit:
            self.step()
            limit -= 1
        assert not self.plans, "it never comes to rest"

    def check_empty(self) -> None:
        self.core.check_integrity()
        assert self.core.is_empty()
        blocks = self.core.snapshot().blocks
        assert blocks["free"] + blocks["prefix"] == self.config.num_blocks
        assert self.core.snapshot().free_slots == self.config.max_running_requests
