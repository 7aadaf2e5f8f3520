"""The life of one request at the router: who holds it, which tokens are known, what to do when a holder fails. Pure.

The router's loop is the only writer. Every method takes what happened and returns the actions to carry out; none does
I/O. A request has one prefill (or mixed) holder, one decode holder, both for a while, or none: then it is queued.
"""

import enum
from collections.abc import Sequence

import msgspec

from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.ids import RequestId, RequestKey
from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.core.wire import FailureCode, Stages
from pdcluster_worker.errors import StateError
from pdcluster_worker.router.errors import APIError, bad_request, internal, overloaded, timed_out

MAX_EXECUTOR_DEATHS = 3
MAX_INTERNAL_FAILURES = 2
SHORTEST_WAIT, LONGEST_WAIT = 0.05, 2.0


class State(enum.Enum):
    QUEUED = "queued"
    """Nobody holds it."""
    SUBMITTED = "submitted"
    """The prefill or mixed worker holds it."""
    RESERVED = "reserved"
    """The prefill worker holds it and a decode worker has, or will have, a commit."""
    ADOPTING = "adopting"
    """The prefill worker is lost; the decode worker was asked whether it has a commit."""
    DECODING = "decoding"
    """The decode worker alone holds it."""
    ENDED = "ended"


class Signal(enum.Enum):
    SUBMIT = "submit"
    RESERVE = "reserve"
    HAND_OFF = "hand_off"
    PREFILL_LOST = "prefill_lost"
    DECODE_LOST = "decode_lost"
    CONFIRM = "confirm"
    RETRY = "retry"
    END = "end"


TRANSITIONS = {
    (State.QUEUED, Signal.SUBMIT): State.SUBMITTED,
    (State.SUBMITTED, Signal.RESERVE): State.RESERVED,
    (State.SUBMITTED, Signal.HAND_OFF): State.DECODING,
    (State.SUBMITTED, Signal.RETRY): State.QUEUED,
    (State.RESERVED, Signal.RESERVE): State.RESERVED,
    (State.RESERVED, Signal.HAND_OFF): State.DECODING,
    (State.RESERVED, Signal.PREFILL_LOST): State.ADOPTING,
    (State.RESERVED, Signal.DECODE_LOST): State.SUBMITTED,
    (State.RESERVED, Signal.RETRY): State.QUEUED,
    (State.ADOPTING, Signal.CONFIRM): State.DECODING,
    (State.ADOPTING, Signal.RETRY): State.QUEUED,
    (State.DECODING, Signal.RETRY): State.QUEUED,
} | {(state, Signal.END): State.ENDED for state in State if state is not State.ENDED}


class Attach(msgspec.Struct, frozen=True):
    """Ask `worker` for the output from the first index that is lacking."""

    worker: str
    prefill_lost: bool = False


class Abort(msgspec.Struct, frozen=True):
    worker: str
    epoch: int


class Resubmit(msgspec.Struct, frozen=True):
    """The life is queued again, with a new epoch. Do not choose `avoid` while there is another; not before `delay`."""

    reason: str
    avoid: str = ""
    delay: float = 0.0


class End(msgspec.Struct, frozen=True):
    """`reason` is stop or length; or there is an error."""

    reason: str = ""
    error: APIError | None = None


Known = tuple[int, TokenLogprob | None]
Action = Attach | Abort | Resubmit | End


class Life:
    """`tokens` is all output so far: delivered, never changed. `prefill` and `decode` are instance ids."""

    def __init__(self, request_id: RequestId) -> None:
        self.request_id = request_id
        self.state = State.QUEUED
        self.epoch = 1
        self.tokens: list[int] = []
        self.prefill: str | None = None
        self.decode: str | None = None
        self.prefilled_by: str | None = None
        self.decoded_by: str | None = None
        self.alone = False
        self.stages = Stages()
        self.executor_deaths = 0
        self.internal_failures = 0
        self.resubmissions = 0
        self.disturbed = False
        """A worker died while this request was open: lack of room is then no answer to give."""
        self._fruitless = 0
        self._tokens_before = 0
        self._ahead: dict[int, tuple[int, TokenLogprob | None]] = {}

    @property
    def key(self) -> RequestKey:
        return RequestKey(self.request_id, self.epoch)

    # --- progress -----------------------------------------------------------------------------------

    def submitted(self, worker: str) -> None:
        self._step(Signal.SUBMIT)
        self.prefill = self.prefilled_by = worker
        self.decoded_by = None

    def token(self, worker: str, index: int, token: int, logprob: TokenLogprob | None) -> list[Known]:
        """The tokens that are new and in order because of this one: none for an index that is known already."""
        if worker == self.decode:
            self.decoded_by = worker
            if self.state is State.ADOPTING:
                self._confirmed()
        known = len(self.tokens)
        if index == known and not self._ahead:
            self.tokens.append(token)
            return [(token, logprob)]
        if index >= known:
            self._ahead[index] = (token, logprob)
        fresh: list[Known] = []
        while (entry := self._ahead.pop(len(self.tokens), None)) is not None:
            self.tokens.append(entry[0])
            fresh.append(entry)
        return fresh

    def reserved(self, decode: str, seconds: float) -> list[Action]:
        """The prefill worker has a lease at `decode`."""
        if self.state not in (State.SUBMITTED, State.RESERVED):
            return []
        self._step(Signal.RESERVE)
        self.stages = msgspec.structs.replace(self.stages, reserve=seconds)
        if self.decode == decode:
            return []
        self.decode = decode
        return [Attach(decode)]

    def handed_off(self, decode: str, stages: Stages) -> list[Action]:
        """The decode worker has committed; the prefill worker holds nothing more."""
        if self.state not in (State.SUBMITTED, State.RESERVED):
            return []
        attached = self.decode == decode
        self._step(Signal.HAND_OFF)
        self.stages = stages
        self.prefill, self.decode = None, decode
        return [] if attached else [Attach(decode)]

    def finished(self, worker: str, finish: FinishedNote) -> list[Action]:
        if self._ahead:
            return self._retry("tokens_missing", worker)
        self.stages = _merged(self.stages, finish.stages)
        other = self.prefill if worker == self.decode else None
        return self.end(End(reason=finish.reason), [other] if other else [])

    def end(self, end: End, abort: Sequence[str] | None = None) -> list[Action]:
        """Ends for a reason of the router's own, or of a worker's. Aborts at `abort`, by default at all holders."""
        if self.state is State.ENDED:
            return []
        workers = self.holders() if abort is None else abort
        self._step(Signal.END)
        self.prefill = self.decode = None
        return [*(Abort(worker, self.epoch) for worker in workers), end]

    # --- trouble ------------------------------------------------------------------------------------

    def lost(self, worker: str) -> list[Action]:
        """The worker's process is gone, or did not come back in time."""
        if worker == self.prefill:
            return self._prefill_lost("prefill_lost", worker)
        if worker != self.decode:
            return []
        if self.state is State.RESERVED:  # the prefill worker notices too, and leases elsewhere
            return self._forget_decode()
        return self._retry("decode_lost", worker)

    def failed(self, worker: str, failure: FailedNote) -> list[Action]:
        code = failure.code
        if worker not in self.holders():
            return []
        if code is FailureCode.EXECUTOR_LOST and failure.was_running:
            self.executor_deaths += 1
            if self.alone:
                message = "the request ended its executor each time it ran, at last without neighbours"
                return self.end(End(error=internal(message, "poison_request")))
            self.alone = self.executor_deaths >= MAX_EXECUTOR_DEATHS
        if code is FailureCode.INVALID_ARGUMENT:
            return self.end(End(error=bad_request(failure.reason)))
        if code is FailureCode.DEADLINE:
            return self.end(End(error=timed_out("the request's deadline has passed")))
        if code in (FailureCode.OVERLOADED, FailureCode.NO_DECODE):
            return self._refused(worker, failure)
        if code is FailureCode.INTERNAL:
            self.internal_failures += 1
            if self.internal_failures > MAX_INTERNAL_FAILURES:
                return self.end(End(error=internal(f"the worker failed: {failure.reason}")))
        return self._retry_elsewhere(worker, code)

    def holders(self) -> list[str]:
        return [worker for worker in (self.prefill, self.decode) if worker is not None]

    def _refused(self, worker: str, failure: FailedNote) -> list[Action]:
        """No room. The client may come back later, unless it has tokens or its request was hit by a death."""
        delay = min(max(failure.retry_after, 0.1), LONGEST_WAIT)
        if self.tokens or self.resubmissions or self.disturbed:
            return self._retry(failure.code.name.lower(), worker, delay)
        return self.end(End(error=overloaded(failure.reason or "no capacity", failure.retry_after or 1.0)))

    def _retry_elsewhere(self, worker: str, code: FailureCode) -> list[Action]:
        reason = code.name.lower()
        if self.state is State.RESERVED and worker == self.prefill:
            return self._prefill_lost(reason, worker)
        if self.state is State.RESERVED and code is not FailureCode.PREEMPTED:
            return self._forget_decode()
        return self._retry(reason, worker, self._patience())

    def _patience(self) -> float:
        """Seconds to wait before another attempt: none at first, more while attempts bring no token."""
        fruitless = self._fruitless
        return min(SHORTEST_WAIT * 2.0 ** (fruitless - 1), LONGEST_WAIT) if fruitless else 0.0

    def _prefill_lost(self, reason: str, worker: str) -> list[Action]:
        if self.state is not State.RESERVED or self.decode is None:
            return self._retry(reason, worker)
        self._step(Signal.PREFILL_LOST)
        self.prefill = None
        return [Attach(self.decode, prefill_lost=True)]

    def _forget_decode(self) -> list[Action]:
        self._step(Signal.DECODE_LOST)
        self.decode = None
        return []

    def _retry(self, reason: str, avoid: str, delay: float = 0.0) -> list[Action]:
        aborts: list[Action] = [Abort(worker, self.epoch) for worker in self.holders()]
        self._step(Signal.RETRY)
        self.epoch += 1
        self.resubmissions += 1
        self.prefill = self.decode = None
        self._ahead.clear()
        self._fruitless = self._fruitless + 1 if len(self.tokens) == self._tokens_before else 0
        self._tokens_before = len(self.tokens)
        return [*aborts, Resubmit(reason, avoid, delay)]

    def _confirmed(self) -> None:
        self._step(Signal.CONFIRM)

    def _step(self, signal: Signal) -> None:
        state = TRANSITIONS.get((self.state, signal))
        if state is None:
            raise StateError(f"a request that is {self.state.value} cannot {signal.value}")
        self.state = state


def _merged(first: Stages, last: Stages) -> Stages:
    """The prefill worker measured its stages, the decode worker its own."""
    if last.prefill or not first.prefill:
        return last
    return msgspec.structs.replace(first, decode=last.decode)
