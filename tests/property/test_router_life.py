"""A request's life at the router under any order of reports, losses and ends."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.ids import PeerId, RequestId
from pdcluster_worker.core.wire import FailureCode, Stages
from pdcluster_worker.router.errors import APIError
from pdcluster_worker.router.life import Abort, Action, Attach, End, Life, Resubmit, State

WORKERS = [PeerId(name) for name in ("p", "q", "d", "e")]
workers = st.sampled_from(WORKERS)
steps = st.one_of(
    st.tuples(st.just("submitted"), workers),
    st.tuples(st.just("reserved"), workers),
    st.tuples(st.just("handed_off"), workers),
    st.tuples(st.just("token"), workers, st.integers(0, 6)),
    st.tuples(st.just("lost"), workers),
    st.tuples(st.just("failed"), workers, st.sampled_from(FailureCode), st.booleans()),
    st.tuples(st.just("finished"), workers),
    st.tuples(st.just("cancelled")),
)


def apply(life: Life, step: tuple[object, ...], delivered: list[int]) -> list[Action]:
    """One step, as the dispatcher would take it; the token at index i is 100 + i, as any worker computes it."""
    match step:
        case ("submitted", worker):
            if life.state is State.QUEUED:
                life.submitted(worker)
            return []
        case ("reserved", worker):
            return life.reserved(worker, 0.0)
        case ("handed_off", worker):
            return life.handed_off(worker, Stages())
        case ("token", worker, index):
            if life.state not in (State.QUEUED, State.ENDED):
                delivered += [token for token, _ in life.token(worker, index, 100 + index, None)]
            return []
        case ("lost", worker):
            return life.lost(worker)
        case ("failed", worker, code, was_running):
            return life.failed(worker, FailedNote(1, code, "because", 1.0, was_running))
        case ("finished", worker):
            note = FinishedNote(1, "stop", len(life.tokens), None, Stages())
            return life.finished(worker, note) if worker in life.holders() else []
        case _:
            return life.end(End(error=APIError(499, "gone")))


@given(st.lists(steps, max_size=60))
def test_whatever_happens(script: list[tuple[object, ...]]) -> None:
    life, delivered, ends, epochs = Life(RequestId(b"0" * 16)), list[int](), 0, [1]
    for step in script:
        held, epoch = life.holders(), life.epoch
        actions = apply(life, step, delivered)
        ends += sum(isinstance(action, End) for action in actions)
        epochs.append(life.epoch)
        check(life, held, epoch, actions)
    assert delivered == life.tokens == [100 + index for index in range(len(delivered))]
    assert ends == (life.state is State.ENDED)
    assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(epochs))


def check(life: Life, held: list[str], epoch: int, actions: list[Action]) -> None:
    """Nobody who holds it is forgotten without a word, and nobody is asked who does not."""
    kinds = {type(action) for action in actions}
    aborted = {action.worker for action in actions if isinstance(action, Abort)}
    assert all(action.epoch == epoch for action in actions if isinstance(action, Abort))
    assert all(action.worker == life.decode for action in actions if isinstance(action, Attach))
    assert (Resubmit in kinds) == (life.epoch == epoch + 1)
    if Resubmit in kinds:
        assert life.state is State.QUEUED
        assert aborted == set(held)
    if life.state in (State.QUEUED, State.ENDED):
        assert life.holders() == []
    else:
        assert life.holders()
