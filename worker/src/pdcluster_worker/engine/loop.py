"""The engine loop: one thread, sole owner of the core.

A turn takes everything that is in the inbox, lets the core decide, and acts once: one message to the executor, one
delivery to the I/O thread. Between turns the thread sleeps in the inbox until the core's next deadline.
"""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import structlog

from pdcluster_worker.core.core import Core
from pdcluster_worker.core.effects import Outbox
from pdcluster_worker.core.events import Aborted, Event, ExecutorLost
from pdcluster_worker.engine.gather import RankGather
from pdcluster_worker.engine.items import (
    AddPeer,
    ExecutorExited,
    ExecutorSaid,
    Item,
    Question,
    RemovePeer,
)
from pdcluster_worker.engine.ports import Executors, Outgoing, Outlet, Preparation, Recorder, Status
from pdcluster_worker.errors import ExecutorError, StateError, TransportError
from pdcluster_worker.ipc.messages import ToExecutor

log = structlog.get_logger(__name__)

STATUS_INTERVAL = 0.1
"""Gauges follow a change after at most this many seconds."""
IDLE_TURN = 60.0
"""Without any deadline of the core the loop still turns this often."""

T = TypeVar("T")


class EngineLoop:
    """`post` and `ask` are for every thread; all else happens on the thread that runs `run` (or, in tests, `turn`)."""

    def __init__(
        self,
        core: Core,
        executors: Executors,
        prepare: Preparation,
        outlet: Outlet,
        recorder: Recorder,
        *,
        ranks: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._core = core
        self._executors = executors
        self._prepare = prepare
        self._outlet = outlet
        self._recorder = recorder
        self._clock = clock
        self._gather = RankGather(ranks)
        self._inbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._owner = 0
        self._stopping = False
        self._status_due = 0.0
        self._changed = True
        self._drained = False
        self._peers_to_remove: list[str] = []
        self.failure = ""
        """Why the loop ended by itself; empty while it runs and after an orderly stop."""

    def post(self, *items: Item) -> None:
        """From any thread."""
        for item in items:
            self._inbox.put(item)

    def ask(self, question: Callable[[Core], T]) -> "Future[T]":
        """From any thread: `question` runs between turns of the loop and must only read."""
        item = Question(question)
        self._inbox.put(item)
        return item.answer

    def run(self) -> None:
        """The thread's body. Ends after `Stop` or the executor's death, with everything delivered."""
        try:
            while not self._stopping:
                self.turn(self._receive())
        except Exception as error:  # the thread's top: a bug; the process ends, routers submit elsewhere
            log.exception("engine_loop_failed")
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._refuse_rest()

    def turn(self, items: list[Item]) -> None:
        """Take in `items`, decide, act."""
        self._check_owner()
        now = self._clock()
        for item in items:
            self._accept(item, now)
        deadline = self._core.next_deadline()
        self._changed = self._changed or bool(items) or (deadline is not None and deadline <= now)
        outbox = self._core.take(now)
        self._changed = self._changed or outbox.drained != self._drained
        self._drained = outbox.drained
        self._act(outbox, now)

    def _receive(self) -> list[Item]:
        """Waits for the first item until a deadline, then takes what else is there."""
        items: list[Item] = []
        try:
            items.append(self._inbox.get(timeout=self._patience()))
            for _ in range(self._inbox.qsize()):
                items.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return items

    def _patience(self) -> float:
        now = self._clock()
        deadline = self._core.next_deadline()
        wake = now + IDLE_TURN if deadline is None else deadline
        if self._changed:
            wake = min(wake, self._status_due)
        return min(max(wake - now, 0.0), IDLE_TURN)

    def _accept(self, item: Item, now: float) -> None:
        if isinstance(item, Event):
            if isinstance(item, Aborted) and item.key is not None:
                self._prepare.skip(item.key)
            self._core.handle(item, now)
        elif isinstance(item, ExecutorSaid):
            self._recorder.executor_said(item.message)
            for event in self._gather.events(item.message):
                self._core.handle(event, now)
        elif isinstance(item, ExecutorExited):
            self._executor_exited(item, now)
        elif isinstance(item, Question):
            self._answer(item)
        elif isinstance(item, AddPeer):
            self._add_peer(item)
        elif isinstance(item, RemovePeer):
            self._peers_to_remove.append(item.peer)
        else:
            self._stopping = True

    def _act(self, outbox: Outbox, now: float) -> None:
        self._tell_executor(outbox, now)
        for request in outbox.prepare:
            self._prepare.submit(request)
        outgoing = Outgoing(outbox.routers, outbox.decodes, outbox.prefills, self._status(now))
        if outgoing:
            self._outlet.deliver(outgoing)
        if outbox.routers:
            self._recorder.said(outbox.routers.values())
        if outbox.observations:
            self._recorder.observe(outbox.observations)

    def _tell_executor(self, outbox: Outbox, now: float) -> None:
        if not (outbox.plans or outbox.transfers or outbox.cancel_transfers or outbox.fences or self._peers_to_remove):
            return
        message = ToExecutor(
            remove_peers=tuple(self._peers_to_remove),
            cancel_transfers=tuple(outbox.cancel_transfers),
            transfers=tuple(outbox.transfers),
            plans=tuple(outbox.plans),
            fences=tuple(outbox.fences),
            sent_at=now,
        )
        self._peers_to_remove.clear()
        try:
            self._executors.send(message)
        except ExecutorError as error:
            self.post(ExecutorExited(0, str(error)))

    def _status(self, now: float) -> Status | None:
        """A fresh one when something has changed and the last is old enough, or when the loop ends."""
        if not self._changed or (now < self._status_due and not self._stopping):
            return None
        self._changed = False
        self._status_due = now + STATUS_INTERVAL
        status = Status(self._core.snapshot(), self._drained)
        self._recorder.snapshot(status.snapshot)
        return status

    def _executor_exited(self, item: ExecutorExited, now: float) -> None:
        """Every request is failed in this turn, and the turn is the last."""
        if self._stopping:
            return
        log.error("executor_lost", rank=item.rank, reason=item.reason)
        self.failure = item.reason
        self._stopping = True
        self._gather.executor_lost(item.reason)
        self._core.handle(ExecutorLost(reason=item.reason), now)

    def _answer(self, item: Question) -> None:
        if not item.answer.set_running_or_notify_cancel():
            return
        try:
            item.answer.set_result(item.ask(self._core))
        except Exception as error:  # the asker's mistake must not end the loop; the asker gets it
            item.answer.set_exception(error)

    def _add_peer(self, item: AddPeer) -> None:
        try:
            self._executors.add_peer(item.peer, item.ranks)
        except TransportError as error:
            item.added.set_exception(error)
            return
        self._gather.expect_peer(item.peer, item.added)

    def _refuse_rest(self) -> None:
        """Nobody waits for an answer that will not come."""
        gone = StateError("the engine has ended")
        self._gather.executor_lost(str(gone))
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            future = item.answer if isinstance(item, Question) else item.added if isinstance(item, AddPeer) else None
            if future is not None and future.set_running_or_notify_cancel():
                future.set_exception(gone)

    def _check_owner(self) -> None:
        thread = threading.get_ident()
        self._owner = self._owner or thread
        if thread != self._owner:
            raise StateError("the core belongs to another thread")
