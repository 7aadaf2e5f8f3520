"""The real prepare pool under a real engine thread: aborts, time-outs, refusals and duplicate answers at random.

The decode workers and the executor are played on the engine thread, by dice. Whatever falls: every request ends
exactly once, a broken one alone, and nothing is held afterwards.
"""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import structlog
from core_executor import FakeExecutor
from core_requests import make_config, make_request
from worker_fakes import FakeRecorder

from pdcluster_worker.core import effects, events
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.ids import LeaseId, PeerId, PlanId, StreamId, TransferId
from pdcluster_worker.core.plan import StepPlan, TransferSpec
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RankMetadata, RefuseReason, Role
from pdcluster_worker.engine.items import Stop
from pdcluster_worker.engine.loop import EngineLoop
from pdcluster_worker.engine.ports import Outgoing
from pdcluster_worker.engine.prepare import PreparePool
from pdcluster_worker.engine.roles import make_role
from pdcluster_worker.engine.validate import ModelLimits
from pdcluster_worker.errors import TransportError
from pdcluster_worker.ipc.messages import ToExecutor

STREAM = StreamId(1)
PEERS = (PeerId("d1"), PeerId("d2"), PeerId("d3"))
SILENT = PeerId("d3")
"""Answers nothing at all."""
REQUESTS = 400
BLOCK_SIZE = 4
WAIT = 60.0
CONFIG = make_config(
    Role.PREFILL,
    num_blocks=256,
    block_size=BLOCK_SIZE,
    max_running_requests=32,
    max_batch_tokens=256,
    reserve_timeout=0.02,
    commit_timeout=0.05,
    heartbeat_interval=0.02,
    reserve_attempts=50,
    head_age=0.2,
)


@dataclass
class Surroundings:
    """Executor, decode workers and router in one; all but `ended` is used on the engine thread only."""

    seed: int
    loop: EngineLoop | None = None
    notes: dict[int, list[object]] = field(default_factory=dict)
    all_ended: threading.Event = field(default_factory=threading.Event)
    lease: int = 0

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.executor = FakeExecutor(CONFIG.num_blocks, BLOCK_SIZE)
        self.transfers: dict[int, TransferSpec] = {}
        self.late: list[tuple[float, PeerId, effects.ReserveOut]] = []
        """Reserves that are answered after their time, as a link keeps its order and loses nothing."""
        self.leased: dict[PeerId, dict[LeaseId, None]] = {peer: {} for peer in PEERS}

    def post(self, *answers: events.Event) -> None:
        assert self.loop is not None
        self.loop.post(*answers)

    # --- executor -----------------------------------------------------------------------------------

    def send(self, message: ToExecutor) -> None:
        for transfer in message.cancel_transfers:
            self._finish(transfer, ok=False)
        for spec in message.transfers:
            self.transfers[spec.transfer_id] = spec
            self._finish(spec.transfer_id, ok=self.dice.random() < 0.9)
        for plan in message.plans:
            self._run(plan)

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> None:
        raise TransportError(f"{peer} is not asked for here")

    def _run(self, plan: StepPlan) -> None:
        self.transfers.update({spec.transfer_id: spec for spec in plan.transfers})
        done = self.executor.run(plan)
        sampled = set(done.sampled.slots)
        for spec in list(self.transfers.values()):
            if spec.slot in sampled:
                self._finish(spec.transfer_id, ok=self.dice.random() < 0.9)
        self.post(events.StepDone(plan=PlanId(plan.plan_id), sampled=done.sampled, seconds=0.001))

    def _finish(self, transfer: int, *, ok: bool) -> None:
        if self.transfers.pop(transfer, None) is not None:
            self.post(events.TransferFinished(transfer=TransferId(transfer), rank=0, ok=ok, bytes=1, seconds=0.001))

    # --- decode workers and router ------------------------------------------------------------------

    def deliver(self, outgoing: Outgoing) -> None:
        now = time.monotonic()
        for due in [late for late in self.late if late[0] <= now]:
            self.late.remove(due)
            self._answer(*due[1:], late=True)
        for peer, out in outgoing.decodes.items():
            if peer != SILENT:
                self._decode(peer, out)
        for router in outgoing.routers.values():
            for note in (*router.finished, *router.failed, *router.handed_off):
                self.notes.setdefault(note.handle, []).append(note)
        if len(self.notes) == REQUESTS:
            self.all_ended.set()

    def _decode(self, peer: PeerId, out: effects.ToDecode) -> None:
        for commit in out.commits:
            if self.dice.random() < 0.9:
                accepted = events.CommitAccepted(peer=peer, key=commit.request.key, lease=commit.lease)
                self.post(*[accepted] * self.dice.choice((1, 1, 2)))
            self.leased[peer].pop(commit.lease, None)
        for release in out.releases:
            self.leased[peer].pop(release.lease, None)
        for reserve in out.reserves:
            self._answer(peer, reserve)
        heartbeat = Heartbeat(full=True, lease_count=len(self.leased[peer]), lease_ids=tuple(self.leased[peer]))
        self.post(events.DecodeHeartbeat(peer=peer, heartbeat=heartbeat))

    def _answer(self, peer: PeerId, reserve: effects.ReserveOut, *, late: bool = False) -> None:
        fate = self.dice.random()
        if fate < 0.1 and not late:
            self.late.append((time.monotonic() + 2 * CONFIG.reserve_timeout, peer, reserve))
            return
        if fate < 0.25:
            self.post(events.Refused(peer=peer, key=reserve.key, reason=RefuseReason.NO_CAPACITY, retry_after=0.01))
            return
        for repetition in range(self.dice.choice((1, 1, 1, 2, 3))):
            self.lease += not repetition or self.dice.random() < 0.5
            self.leased[peer][LeaseId(self.lease)] = None
            blocks = tuple(range(-(-reserve.tokens // BLOCK_SIZE)))
            self.post(
                events.Granted(
                    peer=peer,
                    key=reserve.key,
                    lease=LeaseId(self.lease),
                    ttl=10.0,
                    matched_blocks=0,
                    block_ids=blocks,
                )
            )


def request(number: int, dice: random.Random) -> Request:
    deadline = time.monotonic() + (WAIT if dice.random() < 0.9 else dice.uniform(0.0, 0.05))
    tokens = dice.randint(1, 40)
    if dice.random() < 0.1:
        return make_request(number, [1_000_000], deadline=deadline)
    return make_request(number, tokens, deadline=deadline)


@pytest.fixture(autouse=True)
def plain_lines() -> Iterator[None]:
    """The bug that is part of the test logs one line, not a page."""
    before = structlog.get_config()
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("threads", [1, 2, 5, 16, 64])
def test_every_request_ends_once_and_nothing_is_held(threads: int) -> None:
    before = set(threading.enumerate())
    dice = random.Random(threads)
    around = Surroundings(seed=threads)
    role = make_role(Role.PREFILL, ModelLimits(64, 1000), BLOCK_SIZE, "test", "layout")

    def prepare(job: Request) -> bytes:
        if job.request_id[0] % 17 == 3:
            raise RuntimeError("a bug for this request alone")
        return role.prepare(job)

    pool = PreparePool(threads, prepare, lambda event: around.post(event))
    loop = EngineLoop(Core(CONFIG, time.monotonic()), around, pool, around, FakeRecorder())
    around.loop = loop
    thread = threading.Thread(target=loop.run)
    thread.start()
    loop.post(events.StreamOpened(stream=STREAM))
    for peer in PEERS:
        loop.post(events.DecodeLinked(peer=peer, pool_blocks=64, ranks=1, lease_ttl=10.0))
        loop.post(events.CreditsChanged(peer=peer, sequence=1, blocks=10_000, requests=10_000))
    for number in range(REQUESTS):
        job = request(number, dice)
        loop.post(events.Submitted(stream=STREAM, handle=number, request=job))
        if dice.random() < 0.2:
            loop.post(events.Submitted(stream=STREAM, handle=number, request=job))
        if dice.random() < 0.2:
            loop.post(events.Aborted(stream=STREAM, key=job.key))
    assert around.all_ended.wait(WAIT), f"{REQUESTS - len(around.notes)} requests have not ended"
    wait_empty(loop)
    loop.post(Stop())
    thread.join(WAIT)
    pool.close()
    check(around, loop)
    assert not set(threading.enumerate()) - before


def wait_empty(loop: EngineLoop) -> None:
    """Transfers and plans that outlive their requests end as well; then all blocks are back and the books balance."""

    def empty(core: Core) -> bool:
        core.check_integrity()
        blocks = core.snapshot().blocks
        return core.is_empty() and blocks["free"] + blocks["prefix"] == CONFIG.num_blocks

    pause, deadline = threading.Event(), time.monotonic() + WAIT
    while not loop.ask(empty).result(WAIT):
        assert time.monotonic() < deadline, "something is still held"
        pause.wait(0.02)


def check(around: Surroundings, loop: EngineLoop) -> None:
    assert loop.failure == ""
    assert set(around.notes) == set(range(REQUESTS))
    assert all(len(notes) == 1 for notes in around.notes.values()), "exactly one end each"
    ends = [note for (note,) in around.notes.values()]
    assert sum(isinstance(note, effects.HandedOffNote) for note in ends) > REQUESTS / 4
    codes = {note.code for note in ends if isinstance(note, effects.FailedNote)}
    assert FailureCode.INVALID_ARGUMENT in codes
    assert codes <= {
        FailureCode.INVALID_ARGUMENT,
        FailureCode.ABORTED,
        FailureCode.DEADLINE,
        FailureCode.NO_DECODE,
    }
