"""Late binding: which decode worker, when, and how often."""

from core_prefill import D1, D2, PrefillWorker
from core_requests import make_request

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import FailedNote
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RefuseReason


def beat(worker: PrefillWorker, seconds: float, *peers: str) -> None:
    """Let time pass while these peers are heard from."""
    for _ in range(int(seconds * 2)):
        worker.pass_time(0.5)
        for peer in peers:
            worker.handle(events.DecodeHeartbeat(peer=peer, heartbeat=Heartbeat()))  # type: ignore[arg-type]


def test_nobody_is_asked_without_credit() -> None:
    worker = PrefillWorker()
    worker.link(D1, blocks=0, requests=0)
    worker.submit(make_request(1, 10), 1)
    assert not worker.reserves
    worker.credit(D1, 4)
    assert [(peer, reserve.blocks) for peer, reserve in worker.reserves] == [(D1, 4)]


def test_no_decode_worker_means_waiting_not_failing() -> None:
    worker = PrefillWorker()
    worker.submit(make_request(1, 10), 1)
    beat(worker, 60)
    assert not worker.notes
    worker.link(D1)
    assert worker.reserves


def test_requests_spread_by_credit_left() -> None:
    worker = PrefillWorker(D1, D2, max_batch_tokens=1000)
    for number in range(1, 9):
        worker.submit(make_request(number, 10), number)
    assert [peer for peer, _ in worker.reserves].count(D1) == 4


def test_a_refusal_for_lack_of_room_costs_no_attempt() -> None:
    worker = PrefillWorker(D1, reserve_attempts=2)
    worker.submit(make_request(1, 10), 1)
    for _ in range(10):
        worker.refuse(RefuseReason.NO_CAPACITY)
        worker.pass_time(0.2)
    assert not worker.notes
    assert len(worker.reserves) == 11


def test_time_outs_are_bounded() -> None:
    worker = PrefillWorker(D1, D2, reserve_attempts=2)
    worker.submit(make_request(1, 10), 1)
    beat(worker, 2.5, D1, D2)
    assert [peer for peer, _ in worker.reserves] == [D1, D2] or [peer for peer, _ in worker.reserves] == [D2, D1]
    beat(worker, 2.5, D1, D2)
    note = worker.notes[1]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.NO_DECODE
    assert note.retry_after > 0
    worker.check_empty()


def test_a_silent_worker_is_asked_once() -> None:
    worker = PrefillWorker(D1, D2, max_batch_tokens=1000)
    for number in range(1, 5):
        worker.submit(make_request(number, 10), number)
    silent = worker.reserves[0][0]
    beat(worker, 3.0, D2 if silent == D1 else D1)
    before = len(worker.reserves)
    worker.submit(make_request(9, 10), 9)
    assert all(peer != silent for peer, _ in worker.reserves[before:])
    assert not worker.notes


def test_the_late_grant_of_a_reserve_given_up_is_closed_not_used() -> None:
    worker = PrefillWorker(D1, D2)
    worker.submit(make_request(1, 10), 1)
    beat(worker, 2.5, D1, D2)
    assert len(worker.reserves) == 2
    lease = worker.grant(0)
    assert (worker.releases[-1][1].lease, worker.releases[-1][1].writes_closed) == (lease, True)
    assert not worker.plans
    worker.grant(1)
    assert worker.plans


def test_a_duplicate_grant_changes_nothing() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    peer, reserve = worker.reserves[0]
    grant = events.Granted(
        peer=peer,
        key=reserve.key,
        lease=1,
        ttl=10.0,
        matched_blocks=0,
        block_ids=(0, 1, 2),  # type: ignore[arg-type]
    )
    worker.handle(grant)
    worker.handle(grant)
    assert len(worker.reserved) == 1
    assert not worker.releases


def test_a_broken_link_sends_unstarted_requests_elsewhere() -> None:
    worker = PrefillWorker(D1, max_running_requests=1, plans_in_flight=1)
    for number in (1, 2):
        worker.submit(make_request(number, 10), number)
        worker.grant()
    worker.link(D2)
    worker.handle(events.DecodeLost(peer=D1))
    assert [peer for peer, _ in worker.reserves] == [D1, D1, D2]
    assert worker.reserves[-1][1].key == make_request(2).key
    worker.pass_time(1.1)
    assert worker.cancelled, "the running one waited a moment for the link to come back"


def test_leases_are_held_only_for_the_next_two_batches() -> None:
    worker = PrefillWorker(D1, max_batch_tokens=16, max_running_requests=1)
    for number in range(1, 20):
        worker.submit(make_request(number, 10), number)
    assert len(worker.reserves) == 3
    worker.grant(0)
    assert len(worker.reserves) == 4


def test_a_prompt_larger_than_the_window_is_still_reserved_alone() -> None:
    worker = PrefillWorker(D1, max_batch_tokens=4)
    worker.submit(make_request(1, 40), 1)
    worker.submit(make_request(2, 10), 2)
    assert len(worker.reserves) == 1


def test_small_requests_pass_a_large_head_until_it_is_old() -> None:
    worker = PrefillWorker(max_batch_tokens=1000)
    worker.link(D1, blocks=4)
    worker.submit(make_request(1, 40), 1)
    worker.submit(make_request(2, 10), 2)
    assert [reserve.key for _, reserve in worker.reserves] == [make_request(2).key]
    worker.grant()
    beat(worker, 1.5, D1)
    assert len(worker.reserves) == 1
    beat(worker, 0.5, D1)
    assert len(worker.reserves) == 2
    head = worker.reserves[1][1]
    assert head.queue
    assert head.key == make_request(1).key
    worker.handle(events.QueuedThere(peer=D1, key=head.key))
    worker.credit(D1, 8)
    worker.submit(make_request(3, 10), 3)
    assert len(worker.reserves) == 3, "others go on meanwhile"
    worker.grant(1)
    assert worker.plans


def test_a_request_in_line_too_long_tries_another_worker() -> None:
    worker = PrefillWorker()
    worker.link(D1, blocks=1)
    worker.link(D2, blocks=0)
    worker.submit(make_request(1, 40), 1)
    beat(worker, 2.5, D1, D2)
    worker.handle(events.QueuedThere(peer=D1, key=make_request(1).key))
    assert [(peer, reserve.queue) for peer, reserve in worker.reserves] == [(D1, True)]
    beat(worker, 8.0, D1, D2)
    assert [(peer, reserve.queue) for peer, reserve in worker.reserves] == [(D1, True), (D2, True)]
    assert not worker.notes


def test_next_deadline_never_lies_in_the_past_for_nothing() -> None:
    worker = PrefillWorker()
    worker.link(D1, blocks=0, requests=0)
    worker.submit(make_request(1, 40), 1)
    for _ in range(200):
        deadline = worker.core.next_deadline()
        assert deadline is not None
        worker.now = max(worker.now + 0.001, deadline)
        worker.handle()
    assert worker.now > 10


def test_demand_is_told_at_once() -> None:
    worker = PrefillWorker()
    worker.link(D1, blocks=0, requests=0)
    worker.pass_time(0.5)
    worker.submit(make_request(1, 10), 1)
    beats = [out.decodes[D1].heartbeat for out in worker.outboxes if D1 in out.decodes and out.decodes[D1].heartbeat]
    assert beats[-1] is not None
    assert (beats[-1].demand_blocks, beats[-1].demand_requests) == (4, 1)
