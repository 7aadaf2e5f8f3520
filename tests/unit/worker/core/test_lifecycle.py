"""Drain, resume, the executor's death, gauges: what concerns a worker as a whole."""

import pytest
from core_decode import P1, DecodeWorker
from core_executor import sampled_token
from core_prefill import D1, PrefillWorker
from core_requests import expected_tokens, make_config, make_request
from core_worker import STREAM, LoneWorker

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.wire import FailureCode, RefuseReason


def code(worker: LoneWorker, handle: int) -> FailureCode:
    note = worker.notes[handle]
    assert isinstance(note, FailedNote)
    return note.code


def test_a_draining_worker_finishes_what_it_has() -> None:
    worker = LoneWorker(make_config())
    worker.submit(make_request(1), 1)
    worker.handle(events.DrainAsked(deadline=worker.now + 30))
    worker.submit(make_request(2), 2)
    assert code(worker, 2) is FailureCode.DRAINING
    assert not worker.outboxes[-1].drained
    worker.run()
    assert isinstance(worker.notes[1], FinishedNote)
    assert worker.handle().drained
    worker.handle(events.Resumed())
    worker.submit(make_request(3), 3)
    worker.run()
    assert isinstance(worker.notes[3], FinishedNote)


def test_past_the_deadline_a_draining_worker_hands_back() -> None:
    worker = LoneWorker(make_config())
    worker.submit(make_request(1, max_tokens=50), 1)
    worker.handle(events.DrainAsked(deadline=worker.now + 1))
    worker.step()
    worker.pass_time(1.1)
    assert code(worker, 1) is FailureCode.DRAINING
    worker.run()
    assert worker.handle().drained
    worker.check_empty()


def test_a_draining_decode_worker_takes_commits_but_no_reserves() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.handle(events.DrainAsked(deadline=worker.now + 5))
    credits = worker.outboxes[-1].prefills[P1].credits
    assert credits is not None
    assert credits.draining
    worker.reserve(make_request(2, 10))
    assert worker.refusals[-1].reason is RefuseReason.DRAINING
    worker.handle(events.Attached(stream=STREAM, handle=1, key=request.key, next_index=0))
    worker.commit(request, sampled_token(1, 0))
    worker.run()
    assert worker.tokens[1] == expected_tokens(request)
    assert worker.handle().drained


def test_past_the_deadline_a_draining_decode_worker_ends_its_leases() -> None:
    worker = DecodeWorker()
    worker.reserve(make_request(1, 10))
    worker.handle(events.DrainAsked(deadline=worker.now + 5))
    worker.pass_time(5.1)
    assert len(worker.lost) == 1
    assert worker.handle().drained


def test_the_executors_death_fails_all_and_names_the_suspects() -> None:
    worker = LoneWorker(make_config(max_running_requests=2))
    for number in (1, 2, 3):
        worker.submit(make_request(number), number)
    worker.step()
    worker.handle(events.ExecutorLost(reason="signal 9"))
    for number in (1, 2, 3):
        note = worker.notes[number]
        assert isinstance(note, FailedNote)
        assert note.code is FailureCode.EXECUTOR_LOST
        assert note.was_running == (number < 3)
    worker.submit(make_request(4), 4)
    assert code(worker, 4) is FailureCode.EXECUTOR_LOST
    worker.check_empty()


def test_the_executors_death_at_a_decode_worker_ends_its_leases() -> None:
    worker = DecodeWorker()
    worker.reserve(make_request(1, 10))
    worker.handle(events.ExecutorLost(reason="signal 9"))
    assert len(worker.lost) == 1
    worker.reserve(make_request(2, 10))
    assert worker.refusals[-1].reason is RefuseReason.DRAINING
    worker.check_empty()


def test_the_executors_death_in_a_transfer_promises_nothing() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    worker.grant()
    worker.run()
    worker.handle(events.ExecutorLost(reason="signal 9"))
    assert [release.writes_closed for _, release in worker.releases] == [False]
    assert not worker.closed
    worker.check_empty()


def test_a_suspect_runs_alone() -> None:
    worker = LoneWorker(make_config())
    for number in (1, 2, 3, 4):
        worker.submit(make_request(number, alone=number == 2), number)
    neighbours = []
    while worker.plans:
        plan = worker.plans[0]
        slots = {slot for slot in plan.slots if worker.executor.slots.get(slot)}
        slots |= {admission.slot for admission in plan.admissions}
        seeds = {admission.sampling.seed for admission in plan.admissions}
        seeds |= {
            worker.executor.slots[slot].seed for slot in plan.slots if slot not in {a.slot for a in plan.admissions}
        }
        neighbours.append(seeds)
        worker.step()
    assert all(seeds == {2} for seeds in neighbours if 2 in seeds)
    assert any({3, 4} <= seeds for seeds in neighbours)
    assert len(worker.notes) == 4
    worker.check_empty()


@pytest.mark.parametrize("when", [0, 1, 3, 6])
def test_abort_at_any_step(when: int) -> None:
    worker = LoneWorker(make_config(max_batch_tokens=4))
    worker.submit(make_request(1, 10, max_tokens=8), 1)
    worker.submit(make_request(2, 10, max_tokens=8), 2)
    for _ in range(when):
        worker.step()
    worker.handle(events.Aborted(stream=STREAM, handle=1))
    worker.handle(events.Aborted(stream=STREAM, key=make_request(1).key))
    worker.run()
    assert code(worker, 1) is FailureCode.ABORTED
    assert isinstance(worker.notes[2], FinishedNote)
    worker.check_empty()


def test_gauges() -> None:
    worker = LoneWorker(make_config(max_running_requests=1))
    for number in (1, 2):
        worker.submit(make_request(number, 20), number)
    snapshot = worker.core.snapshot()
    assert (snapshot.requests_running, snapshot.requests_waiting, snapshot.free_slots) == (1, 1, 0)
    assert snapshot.queued_tokens == 20
    assert sum(snapshot.blocks.values()) == 64
    assert snapshot.kv_usage == 5 / 64
    worker.run()
    assert worker.core.snapshot().prefill_tokens_per_second > 0
    assert worker.core.snapshot().queued_tokens == 0


def test_observations_are_named_as_metrics() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    worker.grant()
    worker.run()
    worker.transferred()
    worker.accept()
    names = {observation.name for outbox in worker.outboxes for observation in outbox.observations}
    assert names == {
        "prepare_seconds",
        "reserve_seconds",
        "reserve_attempts_total",
        "prefill_queue_seconds",
        "step_seconds",
        "kv_transfer_seconds",
        "kv_transfer_bytes_total",
    }
