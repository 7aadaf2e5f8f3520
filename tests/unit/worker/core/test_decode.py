"""The decode role: leases, commits, generation, and what becomes of leases nobody commits."""

import pytest
from core_decode import P1, P2, DecodeWorker
from core_executor import sampled_token
from core_requests import expected_tokens, make_request
from core_worker import STREAM

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.ids import LeaseId
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RefuseReason


def attach(worker: DecodeWorker, request: Request, handle: int = 1, *, lost: bool = False, next_index: int = 0) -> None:
    worker.handle(
        events.Attached(stream=STREAM, handle=handle, key=request.key, next_index=next_index, prefill_lost=lost)
    )


def test_reserve_commit_generate() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    (grant,) = worker.grants
    assert len(grant.block_ids) == 3
    assert worker.core.snapshot().blocks["leased"] == 4
    attach(worker, request)
    worker.commit(request, sampled_token(1, 0))
    assert worker.committed == [grant.lease]
    worker.run()
    assert worker.tokens[1] == expected_tokens(request)
    assert isinstance(worker.notes[1], FinishedNote)
    worker.check_empty()
    assert worker.core.snapshot().blocks["prefix"] == 2


def test_duplicates_get_the_same_answers() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.reserve(request)
    assert len({grant.lease for grant in worker.grants}) == 1
    attach(worker, request)
    worker.commit(request, sampled_token(1, 0))
    worker.commit(request, sampled_token(1, 0))
    worker.reserve(request)
    assert len(worker.committed) == 3
    assert len(worker.grants) == 2
    worker.run()
    worker.check_empty()


def test_a_second_request_matches_the_first_ones_prefix() -> None:
    worker = DecodeWorker()
    prompt = list(range(10))
    for number in (1, 2):
        request = make_request(number, prompt)
        worker.reserve(request)
        attach(worker, request, number)
        worker.commit(request, sampled_token(number, 0))
    assert [grant.matched_blocks for grant in worker.grants] == [0, 2]
    assert worker.grants[0].block_ids[:2] == worker.grants[1].block_ids[:2]
    assert worker.grants[0].block_ids[2] != worker.grants[1].block_ids[2]
    worker.run()
    worker.check_empty()


def test_an_uncommitted_prefix_is_not_matched() -> None:
    worker = DecodeWorker()
    for number in (1, 2):
        worker.reserve(make_request(number, list(range(10))))
    assert [grant.matched_blocks for grant in worker.grants] == [0, 0]


def test_older_epochs_are_stale_and_newer_ones_supersede() -> None:
    worker = DecodeWorker(P1, P2)
    worker.reserve(make_request(1, 10, epoch=2), P1)
    worker.reserve(make_request(1, 10, epoch=3), P2)
    assert [lost.key.epoch for lost in worker.lost] == [2]
    worker.reserve(make_request(1, 10, epoch=2), P1)
    assert worker.refusals[-1].reason is RefuseReason.STALE_EPOCH
    worker.commit(make_request(1, 10, epoch=2), 5, P1)
    assert worker.refusals[-1].reason is RefuseReason.UNKNOWN_LEASE
    assert worker.core.snapshot().leases == {"live": 1, "quarantined": 1, "held": 0}


def test_a_newer_epoch_ends_a_running_request() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10, max_tokens=30)
    worker.reserve(request)
    attach(worker, request)
    worker.commit(request, sampled_token(1, 0))
    worker.reserve(make_request(1, 10, epoch=2, max_tokens=30))
    note = worker.notes[1]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.ABORTED


def test_a_lease_expires_into_quarantine_and_leaves_it_by_the_senders_word() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.beat(30)
    assert worker.core.snapshot().leases["live"] == 1
    worker.pass_time(10.1)
    assert worker.core.snapshot().blocks["quarantined"] == 4
    assert [lost.lease for lost in worker.lost] == [1]
    worker.commit(request, 5)
    assert worker.refusals[-1].reason is RefuseReason.UNKNOWN_LEASE
    worker.handle(events.WritesClosed(peer=P1, lease=LeaseId(1), epoch=1))
    worker.check_empty()


@pytest.mark.parametrize("closed", [False, True])
def test_release(closed: bool) -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.handle(events.Released(peer=P1, key=request.key, lease=LeaseId(1), writes_closed=closed))
    assert worker.core.snapshot().blocks["quarantined"] == (0 if closed else 4)
    assert not worker.lost
    worker.handle(events.WritesClosed(peer=P1, lease=LeaseId(1), epoch=1))
    worker.check_empty()


def test_a_sender_that_closed_its_writes_gets_another_lease_when_it_asks_again() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.handle(events.WritesClosed(peer=P1, lease=LeaseId(1), epoch=1))
    assert worker.core.snapshot().leases == {"live": 0, "quarantined": 0, "held": 0}
    worker.reserve(request)
    assert [grant.lease for grant in worker.grants] == [1, 2]
    worker.handle(events.PrefillDied(peer=P1))
    assert worker.core.snapshot().blocks["quarantined"] == 4
    worker.handle(events.FenceDrained(fence=1))
    worker.check_empty()


@pytest.mark.parametrize("released", [False, True])
def test_a_failed_write_needs_a_fence_for_its_bytes_may_be_on_their_way(released: bool) -> None:
    worker = DecodeWorker()
    request, lease = make_request(1, 10), LeaseId(1)
    worker.reserve(request)
    if released:
        closed = events.Released(peer=P1, key=request.key, lease=lease, writes_closed=True, write_failed=True)
    else:
        closed = events.WritesClosed(peer=P1, lease=lease, epoch=1, write_failed=True)
    worker.handle(closed)
    worker.handle(closed)
    assert worker.core.snapshot().leases == {"live": 0, "quarantined": 1, "held": 0}
    assert worker.fences == [1]
    worker.handle(events.FenceDrained(fence=1))
    worker.check_empty()


def test_a_dead_sender_needs_a_fence_asked_for_after_its_death() -> None:
    worker = DecodeWorker(P1, P2)
    worker.reserve(make_request(1, 10), P1)
    worker.reserve(make_request(2, 10), P2)
    worker.handle(events.PrefillDied(peer=P1))
    worker.handle(events.PrefillDied(peer=P2))
    assert worker.fences == [1, 2]
    worker.handle(events.FenceDrained(fence=1))
    assert worker.core.snapshot().leases == {"live": 0, "quarantined": 1, "held": 0}
    worker.handle(events.FenceDrained(fence=2))
    worker.check_empty()


def test_leases_that_the_peer_does_not_list_end() -> None:
    worker = DecodeWorker()
    worker.reserve(make_request(1, 10))
    listless = Heartbeat(full=True)
    worker.handle(events.PrefillHeartbeat(peer=P1, heartbeat=listless))
    assert worker.core.snapshot().leases["live"] == 1, "its grant may be on the way"
    worker.pass_time(2.5)
    worker.handle(events.PrefillHeartbeat(peer=P1, heartbeat=listless))
    assert worker.core.snapshot().leases == {"live": 0, "quarantined": 1, "held": 0}


def test_a_mismatch_is_answered_with_the_full_list() -> None:
    worker = DecodeWorker()
    worker.pass_time(1.0)
    worker.reserve(make_request(1, 10))
    worker.handle(events.PrefillHeartbeat(peer=P1, heartbeat=Heartbeat()))
    worker.pass_time(1.0)
    beat = worker.outboxes[-1].prefills[P1].heartbeat
    assert beat is not None
    assert beat.full
    assert beat.lease_ids == (1,)


def test_attach_waits_for_the_commit_or_fails_at_once() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    attach(worker, request, 1)
    assert not worker.notes
    attach(worker, request, 2, lost=True)
    attach(worker, make_request(7, 10), 3)
    for handle in (2, 3):
        note = worker.notes[handle]
        assert isinstance(note, FailedNote)
        assert note.code is FailureCode.UNKNOWN_REQUEST
    worker.handle(events.Released(peer=P1, key=request.key, lease=LeaseId(1), writes_closed=True))
    note = worker.notes[1]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.UNKNOWN_REQUEST


def test_nobody_attaches() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10, max_tokens=50)
    worker.reserve(request)
    worker.commit(request, sampled_token(1, 0))
    worker.step()
    worker.pass_time(10.1)
    worker.run()
    worker.check_empty()


def test_finished_output_waits_for_its_router() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.commit(request, sampled_token(1, 0))
    worker.run()
    worker.beat(9)
    worker.tokens[1] = expected_tokens(request)[:2]
    attach(worker, request, next_index=2)
    assert worker.tokens[1] == expected_tokens(request)
    assert isinstance(worker.notes[1], FinishedNote)
    worker.check_empty()


def test_a_commit_that_does_not_fit_is_refused() -> None:
    worker = DecodeWorker(ranks=2)
    request = make_request(1, 10)
    worker.reserve(request)
    worker.commit(request, 5, ranks=1)
    assert worker.refusals[-1].reason is RefuseReason.INVALID
    worker.check_empty()


def test_refusals() -> None:
    worker = DecodeWorker(num_blocks=8)
    worker.reserve(make_request(1, 33))
    worker.reserve(make_request(2, 10), blocks=9)
    worker.reserve(make_request(3, 20))
    worker.reserve(make_request(4, 20))
    assert [refusal.reason for refusal in worker.refusals] == [
        RefuseReason.TOO_LARGE,
        RefuseReason.INVALID,
        RefuseReason.NO_CAPACITY,
    ]


def test_freed_blocks_are_set_aside_for_the_request_in_line() -> None:
    worker = DecodeWorker(P1, P2, num_blocks=16)
    for number in (1, 2, 3):
        worker.reserve(make_request(number, 12))
    worker.reserve(make_request(4, 48), P2, queue=True)
    assert worker.queued == [make_request(4).request_id]
    for lease in (1, 2):
        key = worker.grants[lease - 1].key
        worker.handle(events.Released(peer=P1, key=key, lease=LeaseId(lease), writes_closed=True))
        worker.reserve(make_request(10 + lease, 12))
    assert [refusal.reason for refusal in worker.refusals] == [RefuseReason.NO_CAPACITY] * 2
    worker.handle(events.Released(peer=P1, key=worker.grants[2].key, lease=LeaseId(3), writes_closed=True))
    assert worker.grants[-1].key == make_request(4).key


def test_a_place_in_line_is_given_up() -> None:
    worker = DecodeWorker(num_blocks=8)
    worker.reserve(make_request(1, 20))
    worker.reserve(make_request(2, 20), queue=True)
    worker.handle(events.Released(peer=P1, key=make_request(2).key, lease=LeaseId(0)))
    assert worker.refusals[-1].key == make_request(2).key
    worker.handle(events.Released(peer=P1, key=make_request(1).key, lease=LeaseId(1), writes_closed=True))
    assert len(worker.grants) == 1
    worker.check_empty()


def test_out_of_blocks_the_newest_goes_and_comes_back_once() -> None:
    worker = DecodeWorker(num_blocks=8, max_preemptions=3)
    requests = [make_request(number, 8, max_tokens=16) for number in (1, 2)]
    for handle, request in enumerate(requests, 1):
        worker.reserve(request)
        attach(worker, request, handle)
        worker.commit(request, sampled_token(handle, 0))
    worker.run()
    for handle, request in enumerate(requests, 1):
        assert worker.tokens[handle] == expected_tokens(request)
    assert worker.executor.admitted == [1, 2, 2], "the oldest is never preempted"
    names = [observation.name for outbox in worker.outboxes for observation in outbox.observations]
    assert names.count("preemptions_total") == 1
    worker.check_empty()


def test_preempted_twice_it_goes_back_to_the_router() -> None:
    worker = DecodeWorker(num_blocks=8, max_preemptions=1)
    for number in (1, 2):
        request = make_request(number, 8, max_tokens=16)
        worker.reserve(request)
        attach(worker, request, number)
        worker.commit(request, sampled_token(number, 0))
    worker.run()
    assert isinstance(worker.notes[1], FinishedNote)
    note = worker.notes[2]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.PREEMPTED
    worker.check_empty()


def test_the_router_aborts_a_leased_request() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10)
    worker.reserve(request)
    worker.handle(events.Aborted(stream=STREAM, key=request.key))
    assert [lost.lease for lost in worker.lost] == [1]
    assert worker.core.snapshot().blocks["quarantined"] == 4


def test_the_prefill_worker_aborts_a_committed_request() -> None:
    worker = DecodeWorker()
    request = make_request(1, 10, max_tokens=40)
    worker.reserve(request)
    attach(worker, request)
    worker.commit(request, sampled_token(1, 0))
    worker.step()
    worker.handle(events.Released(peer=P1, key=request.key, lease=LeaseId(1), writes_closed=True, aborted=True))
    assert isinstance(worker.notes[1], FailedNote)
    worker.run()
    worker.check_empty()


def test_a_freed_block_is_not_leased_while_an_issued_plan_names_it() -> None:
    worker = DecodeWorker(num_blocks=8)
    request = make_request(1, 18, max_tokens=10)
    worker.reserve(request)
    attach(worker, request)
    worker.commit(request, sampled_token(1, 0))
    assert len(worker.plans) == 2
    worker.handle(events.Aborted(stream=STREAM, key=request.key))
    worker.reserve(make_request(2, 18))
    assert worker.refusals[-1].reason is RefuseReason.NO_CAPACITY
    worker.run()
    worker.reserve(make_request(2, 18))
    assert worker.grants[-1].key == make_request(2).key
