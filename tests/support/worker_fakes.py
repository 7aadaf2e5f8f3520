"""Stand-ins for the engine's surroundings, for tests without processes or networks."""

from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from core_executor import FakeExecutor

from pdcluster_worker.core.config import Snapshot
from pdcluster_worker.core.effects import Observation, RouterOut
from pdcluster_worker.core.events import Event
from pdcluster_worker.core.ids import PeerId, RequestKey
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import Heartbeat, RankMetadata
from pdcluster_worker.engine.ports import Outgoing
from pdcluster_worker.errors import TransportError
from pdcluster_worker.ipc.messages import FromExecutor, StepReport, ToExecutor


@dataclass
class FakeExecutors:
    """Keeps what it is told; `answer` runs the plans on a `FakeExecutor`."""

    num_blocks: int = 64
    block_size: int = 4
    sent: list[ToExecutor] = field(default_factory=list)
    peers: list[PeerId] = field(default_factory=list)
    refuse_peers: bool = False
    broken: Exception | None = None

    def __post_init__(self) -> None:
        self.model = FakeExecutor(self.num_blocks, self.block_size)
        self._answered = 0

    def send(self, message: ToExecutor) -> None:
        if self.broken is not None:
            raise self.broken
        self.sent.append(message)

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> None:
        if self.refuse_peers:
            raise TransportError("the numbers of ranks differ")
        self.peers.append(peer)

    def answer(self) -> list[FromExecutor]:
        """Reports of all plans not yet answered, one message each."""
        plans = [plan for message in self.sent[self._answered :] for plan in message.plans]
        self._answered = len(self.sent)
        reports = []
        for plan in plans:
            done = self.model.run(plan)
            report = StepReport(done.plan, done.sampled.slots, done.sampled.tokens, {}, 0.01, 0, 0)
            reports.append(FromExecutor(rank=0, steps=(report,)))
        return reports


@dataclass
class FakePreparation:
    submitted: list[Request] = field(default_factory=list)
    skipped: list[RequestKey] = field(default_factory=list)

    def submit(self, request: Request) -> None:
        self.submitted.append(request)

    def skip(self, key: RequestKey) -> None:
        self.skipped.append(key)


@dataclass
class FakeOutlet:
    delivered: list[Outgoing] = field(default_factory=list)

    def deliver(self, outgoing: Outgoing) -> None:
        self.delivered.append(outgoing)


@dataclass
class FakeRecorder:
    observations: list[Observation] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    heard: list[FromExecutor] = field(default_factory=list)
    outs: list[RouterOut] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)

    def observe(self, observations: list[Observation]) -> None:
        self.observations.extend(observations)

    def said(self, routers: Iterable[RouterOut]) -> None:
        self.outs.extend(routers)

    def executor_said(self, message: FromExecutor) -> None:
        self.heard.append(message)

    def snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)

    def protocol_error(self, peer_kind: str, reason: str) -> None:
        self.errors.append((peer_kind, reason))

    def link_lost(self, peer_kind: str, reason: str) -> None:
        self.lost.append((peer_kind, reason))


class FakeEngine:
    """EnginePort: keeps the events, answers at once."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.added: list[PeerId] = []
        self.removed: list[PeerId] = []
        self.add_error: Exception | None = None
        self.silent = False

    def post(self, *events: Event) -> None:
        self.events.extend(events)

    def lease_set(self, peer: PeerId) -> "Future[Heartbeat]":
        future: Future[Heartbeat] = Future()
        if not self.silent:
            future.set_result(Heartbeat(full=True))
        return future

    def add_peer(self, peer: PeerId, ranks: tuple[RankMetadata, ...]) -> "Future[None]":
        future: Future[None] = Future()
        self.added.append(peer)
        if self.add_error is not None:
            future.set_exception(self.add_error)
        else:
            future.set_result(None)
        return future

    def remove_peer(self, peer: PeerId) -> None:
        self.removed.append(peer)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]
