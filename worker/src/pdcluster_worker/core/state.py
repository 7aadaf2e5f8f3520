"""The states of a request at one worker, and the one table of what may follow what."""

import enum


class RequestState(enum.Enum):
    PREPARING = "preparing"
    """A prepare thread holds it."""
    QUEUED = "queued"
    """Waits for a decode worker's credit; KV of an earlier attempt may be held."""
    RESERVING = "reserving"
    """A Reserve is out; with `parked`, it waits in line at that decode worker."""
    WAITING = "waiting"
    """Waits for a slot: with a lease (prefill), with its KV (decode), with nothing (mixed, or preempted)."""
    RUNNING = "running"
    """Has a slot, or all its steps are scheduled."""
    TRANSFERRING = "transferring"
    """First token known; KV is on its way."""
    COMMITTING = "committing"
    HANDED_OFF = "handed off"
    FINISHED = "finished"
    FAILED = "failed"

    __hash__ = object.__hash__


_S = RequestState
_ENDS = frozenset({_S.FINISHED, _S.FAILED})

TRANSITIONS: dict[RequestState, frozenset[RequestState]] = {
    _S.PREPARING: frozenset({_S.QUEUED, _S.WAITING}) | _ENDS,
    _S.QUEUED: frozenset({_S.RESERVING, _S.HANDED_OFF}) | _ENDS,
    _S.RESERVING: frozenset({_S.QUEUED, _S.WAITING, _S.TRANSFERRING, _S.HANDED_OFF}) | _ENDS,
    _S.WAITING: frozenset({_S.RUNNING, _S.QUEUED}) | _ENDS,
    _S.RUNNING: frozenset({_S.WAITING, _S.TRANSFERRING, _S.QUEUED}) | _ENDS,
    _S.TRANSFERRING: frozenset({_S.COMMITTING, _S.QUEUED}) | _ENDS,
    _S.COMMITTING: frozenset({_S.HANDED_OFF, _S.QUEUED}) | _ENDS,
    _S.HANDED_OFF: frozenset(),
    _S.FINISHED: frozenset(),
    _S.FAILED: frozenset(),
}
