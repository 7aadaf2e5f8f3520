"""What the engine loop takes from its inbox besides the core's own events."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from pdcluster_worker.core.core import Core
from pdcluster_worker.core.events import Event
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.core.wire import RankMetadata
from pdcluster_worker.ipc.messages import FromExecutor


@dataclass(frozen=True, slots=True)
class ExecutorSaid:
    message: FromExecutor


@dataclass(frozen=True, slots=True)
class ExecutorExited:
    rank: int
    reason: str


@dataclass(frozen=True, slots=True)
class Question:
    """Asked of the core on its own thread; the answer goes to whoever waits for it, with a deadline of theirs."""

    ask: Callable[[Core], Any]
    answer: "Future[Any]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class AddPeer:
    """Every rank's executor is to know the peer's same-numbered rank; `added` tells when all do."""

    peer: PeerId
    ranks: tuple[RankMetadata, ...]
    added: "Future[None]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class RemovePeer:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Stop:
    """The loop's last item."""


Item = Event | ExecutorSaid | ExecutorExited | Question | AddPeer | RemovePeer | Stop
