"""Every failure at every state of a request's life at the router."""

import pytest

from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.ids import PeerId, RequestId
from pdcluster_worker.core.wire import FailureCode, Stages
from pdcluster_worker.errors import StateError
from pdcluster_worker.router.errors import APIError
from pdcluster_worker.router.life import (
    MAX_EXECUTOR_DEATHS,
    TRANSITIONS,
    Abort,
    Attach,
    End,
    Life,
    Resubmit,
    Signal,
    State,
)

P, D, OTHER = PeerId("prefill"), PeerId("decode"), PeerId("other")
RETRYABLE = [FailureCode.PREEMPTED, FailureCode.DRAINING, FailureCode.UNKNOWN_REQUEST, FailureCode.EXECUTOR_LOST]


def life_in(state: State) -> Life:
    life = Life(RequestId(b"0" * 16))
    if state is State.QUEUED:
        return life
    life.submitted(P)
    if state is State.SUBMITTED:
        return life
    life.reserved(D, 0.5)
    if state is State.RESERVED:
        return life
    if state is State.ADOPTING:
        life.lost(P)
    elif state is State.DECODING:
        life.handed_off(D, Stages(prefill=1.0))
    elif state is State.ENDED:
        life.end(End(reason="stop"))
    assert life.state is state
    return life


def failure(code: FailureCode, *, was_running: bool = False) -> FailedNote:
    return FailedNote(1, code, "because", 3.0, was_running)


def finish(tokens: int = 1) -> FinishedNote:
    return FinishedNote(1, "stop", tokens, None, Stages(decode=2.0))


def ended_with(actions: list[object]) -> APIError:
    (end,) = [action for action in actions if isinstance(action, End)]
    assert end.error is not None
    return end.error


def resubmitted(life: Life, actions: list[object], *, aborted: list[str]) -> None:
    """Queued again with a new epoch, every holder of the old one told."""
    assert life.state is State.QUEUED
    assert life.epoch == 2
    assert life.holders() == []
    assert [action.worker for action in actions if isinstance(action, Abort)] == aborted
    assert all(action.epoch == 1 for action in actions if isinstance(action, Abort))
    assert isinstance(actions[-1], Resubmit)


def test_every_state_but_ended_can_end() -> None:
    assert {state for state, signal in TRANSITIONS if signal is Signal.END} == set(State) - {State.ENDED}
    assert not any(state is State.ENDED for state, _ in TRANSITIONS)


def test_the_straight_way() -> None:
    life = life_in(State.SUBMITTED)
    assert life.reserved(D, 0.5) == [Attach(D)]
    assert life.token(P, 0, 70, None) == [(70, None)]
    assert life.handed_off(D, Stages(prefill=1.0, transfer=0.1)) == []
    assert life.token(D, 0, 70, None) == []
    assert life.token(D, 1, 71, None) == [(71, None)]
    assert life.finished(D, finish(2)) == [End(reason="stop")]
    assert life.tokens == [70, 71]
    assert life.state is State.ENDED
    assert (life.stages.prefill, life.stages.decode) == (1.0, 2.0)


def test_tokens_that_overtake_others_wait_for_them() -> None:
    life = life_in(State.RESERVED)
    assert life.token(D, 1, 71, None) == []
    assert life.token(D, 1, 71, None) == []
    assert life.token(P, 0, 70, None) == [(70, None), (71, None)]
    assert life.token(P, 0, 99, None) == []
    assert life.tokens == [70, 71]


def test_an_end_with_tokens_missing_is_no_end() -> None:
    life = life_in(State.DECODING)
    life.token(D, 1, 71, None)
    resubmitted(life, life.finished(D, finish(2)), aborted=[D])


def test_the_decode_worker_may_end_before_the_hand_over_is_heard() -> None:
    life = life_in(State.RESERVED)
    assert life.finished(D, finish()) == [Abort(P, 1), End(reason="stop")]
    assert life.handed_off(D, Stages()) == []


def test_the_prefill_worker_may_end_it_with_the_first_token() -> None:
    life = life_in(State.RESERVED)
    assert life.finished(P, finish()) == [End(reason="stop")]


def test_a_new_lease_elsewhere() -> None:
    life = life_in(State.RESERVED)
    assert life.reserved(OTHER, 0.1) == [Attach(OTHER)]
    assert life.failed(D, failure(FailureCode.UNKNOWN_REQUEST)) == []
    assert life.handed_off(OTHER, Stages()) == []
    assert life.decode == OTHER


def test_a_hand_over_to_a_worker_that_was_not_announced() -> None:
    life = life_in(State.SUBMITTED)
    assert life.handed_off(D, Stages()) == [Attach(D)]


@pytest.mark.parametrize("state", [State.SUBMITTED, State.RESERVED, State.ADOPTING, State.DECODING])
def test_a_stranger_changes_nothing(state: State) -> None:
    life = life_in(state)
    assert life.lost(OTHER) == []
    assert life.failed(OTHER, failure(FailureCode.INTERNAL)) == []
    assert life.state is state


def test_the_prefill_worker_is_lost_before_a_reservation() -> None:
    life = life_in(State.SUBMITTED)
    resubmitted(life, life.lost(P), aborted=[P])


def test_the_prefill_worker_is_lost_with_a_reservation() -> None:
    life = life_in(State.RESERVED)
    assert life.lost(P) == [Attach(D, prefill_lost=True)]
    assert life.state is State.ADOPTING


def test_the_decode_worker_had_the_commit() -> None:
    life = life_in(State.ADOPTING)
    assert life.token(D, 0, 70, None) == [(70, None)]
    assert life.state is State.DECODING


@pytest.mark.parametrize("code", RETRYABLE)
def test_the_decode_worker_had_no_commit(code: FailureCode) -> None:
    life = life_in(State.ADOPTING)
    resubmitted(life, life.failed(D, failure(code)), aborted=[D])


def test_both_are_lost() -> None:
    life = life_in(State.ADOPTING)
    resubmitted(life, life.lost(D), aborted=[D])


def test_the_decode_worker_is_lost_while_the_prefill_worker_holds_on() -> None:
    life = life_in(State.RESERVED)
    assert life.lost(D) == []
    assert life.state is State.SUBMITTED
    assert life.reserved(OTHER, 0.1) == [Attach(OTHER)]


def test_the_decode_worker_is_lost_after_the_hand_over() -> None:
    life = life_in(State.DECODING)
    life.token(D, 0, 70, None)
    resubmitted(life, life.lost(D), aborted=[D])
    assert life.tokens == [70]


@pytest.mark.parametrize("code", RETRYABLE)
@pytest.mark.parametrize("state", [State.SUBMITTED, State.DECODING])
def test_the_only_holder_gives_it_back(state: State, code: FailureCode) -> None:
    life = life_in(state)
    holder = life.holders()[0]
    resubmitted(life, life.failed(holder, failure(code)), aborted=[holder])


@pytest.mark.parametrize("code", RETRYABLE)
def test_the_prefill_worker_gives_it_back_after_a_reservation(code: FailureCode) -> None:
    """A commit may be on its way: the decode worker knows."""
    life = life_in(State.RESERVED)
    assert life.failed(P, failure(code)) == [Attach(D, prefill_lost=True)]


@pytest.mark.parametrize("code", [FailureCode.UNKNOWN_REQUEST, FailureCode.DRAINING, FailureCode.EXECUTOR_LOST])
def test_the_decode_worker_gives_it_back_before_the_hand_over(code: FailureCode) -> None:
    life = life_in(State.RESERVED)
    assert life.failed(D, failure(code)) == []
    assert life.state is State.SUBMITTED


def test_a_preempted_request_was_committed() -> None:
    life = life_in(State.RESERVED)
    resubmitted(life, life.failed(D, failure(FailureCode.PREEMPTED)), aborted=[P, D])


@pytest.mark.parametrize("code", [FailureCode.OVERLOADED, FailureCode.NO_DECODE])
def test_want_of_room_is_for_the_client_while_it_has_nothing(code: FailureCode) -> None:
    error = ended_with(life_in(State.SUBMITTED).failed(P, failure(code)))
    assert error.status == 503
    assert error.headers() == {"retry-after": "3"}


@pytest.mark.parametrize("why", ["tokens", "resubmissions", "disturbed"])
def test_want_of_room_is_waited_for_otherwise(why: str) -> None:
    life = life_in(State.SUBMITTED)
    if why == "tokens":
        life.token(P, 0, 70, None)
    else:
        setattr(life, why, 1)
    actions = life.failed(P, failure(FailureCode.NO_DECODE))
    assert isinstance(actions[-1], Resubmit)
    assert actions[-1].delay == 2.0


@pytest.mark.parametrize(
    ("code", "status"), [(FailureCode.INVALID_ARGUMENT, 400), (FailureCode.DEADLINE, 504)], ids=["invalid", "deadline"]
)
@pytest.mark.parametrize("state", [State.SUBMITTED, State.RESERVED, State.ADOPTING, State.DECODING])
def test_final_failures(state: State, code: FailureCode, status: int) -> None:
    life = life_in(state)
    assert ended_with(life.failed(life.holders()[0], failure(code))).status == status
    assert life.state is State.ENDED


def test_internal_failures_are_bounded() -> None:
    life = life_in(State.SUBMITTED)
    for _ in range(2):
        assert isinstance(life.failed(P, failure(FailureCode.INTERNAL))[-1], Resubmit)
        life.submitted(P)
    assert ended_with(life.failed(P, failure(FailureCode.INTERNAL))).status == 500


def test_poison() -> None:
    life = life_in(State.SUBMITTED)
    for deaths in range(1, MAX_EXECUTOR_DEATHS + 1):
        assert isinstance(life.failed(P, failure(FailureCode.EXECUTOR_LOST, was_running=True))[-1], Resubmit)
        assert life.alone is (deaths == MAX_EXECUTOR_DEATHS)
        life.submitted(P)
    error = ended_with(life.failed(P, failure(FailureCode.EXECUTOR_LOST, was_running=True)))
    assert (error.status, error.code) == (500, "poison_request")


def test_deaths_while_it_waited_do_not_count() -> None:
    life = life_in(State.SUBMITTED)
    for _ in range(10):
        life.failed(P, failure(FailureCode.EXECUTOR_LOST))
        life.submitted(P)
    assert not life.alone


@pytest.mark.parametrize(
    ("state", "workers"),
    [
        (State.QUEUED, []),
        (State.SUBMITTED, [P]),
        (State.RESERVED, [P, D]),
        (State.ADOPTING, [D]),
        (State.DECODING, [D]),
    ],
)
def test_cancelling_tells_every_holder(state: State, workers: list[str]) -> None:
    life = life_in(state)
    end = End(error=APIError(499, "gone"))
    assert life.end(end) == [*(Abort(worker, 1) for worker in workers), end]
    assert life.end(end) == []


def test_a_forbidden_step_is_a_bug() -> None:
    with pytest.raises(StateError):
        life_in(State.DECODING).submitted(P)


def test_old_epochs_do_not_reorder_tokens() -> None:
    life = life_in(State.DECODING)
    life.token(D, 0, 70, None)
    life.token(D, 2, 72, None)
    life.lost(D)
    life.submitted(P)
    assert life.token(P, 1, 71, None) == [(71, None)]
    assert life.tokens == [70, 71]
