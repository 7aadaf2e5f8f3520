"""The prefill role's part of a hand-over, and what it does when the other side does not play."""

from core_executor import sampled_token
from core_prefill import D1, D2, PrefillWorker
from core_requests import make_request
from core_worker import STREAM

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import FailedNote, FinishedNote, HandedOffNote
from pdcluster_worker.core.ids import LeaseId, StreamId
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RefuseReason


def computed(worker: PrefillWorker, number: int = 1, **options: object) -> None:
    """Request 1 has its lease and its first token; the transfer is out."""
    worker.submit(make_request(number, 10, **options), number)
    worker.grant()
    worker.run()


def test_blocks_are_taken_with_the_lease_and_kept_until_the_commit() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    assert worker.core.snapshot().blocks["running"] == 0
    assert not worker.plans
    worker.grant()
    assert [note.decode for note in worker.reserved] == [D1]
    assert worker.core.snapshot().blocks["running"] == 3
    worker.run()
    assert worker.tokens[1] == [sampled_token(1, 0)]
    assert not worker.commits
    worker.transferred()
    _, commit = worker.commits[0]
    assert [(output.index, output.token) for output in commit.outputs] == [(0, sampled_token(1, 0))]
    assert worker.core.snapshot().blocks["running"] == 3
    worker.accept()
    assert isinstance(worker.notes[1], HandedOffNote)
    worker.check_empty()


def test_the_transfer_leaves_out_what_the_decode_worker_has() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    worker.grant(matched=2)
    (transfer,) = worker.transfers
    assert transfer.first_block == 2
    assert transfer.remote_blocks == (2,)
    assert len(transfer.local_blocks) == 1


def test_a_prefix_hit_skips_compute_but_not_transfer() -> None:
    worker = PrefillWorker(D1)
    for number in (1, 2):
        worker.submit(make_request(number, list(range(10))), number)
        worker.grant()
        worker.run()
        worker.transferred()
        worker.accept()
    assert [transfer.computed_tokens for transfer in worker.transfers] == [0, 8]
    assert {len(transfer.remote_blocks) for transfer in worker.transfers} == {3}
    worker.check_empty()


def test_what_the_same_step_computes_for_another_request_is_not_sent_before_it() -> None:
    worker = PrefillWorker(D1)
    for number in (1, 2):
        worker.submit(make_request(number, list(range(10))), number)
    worker.handle(worker.granted(0), worker.granted(1))
    worker.run()
    assert len(worker.executor.batch_sizes) == 1
    first, second = worker.transfers
    assert first.local_blocks[:2] == second.local_blocks[:2], "the second request shares the first one's blocks"
    assert (first.computed_tokens, second.computed_tokens) == (0, 0)


def test_everything_matched_needs_no_transfer() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 8), 1)
    worker.grant(matched=2)
    worker.run()
    assert not worker.transfers
    assert len(worker.commits) == 1
    worker.accept()
    worker.check_empty()


def test_all_ranks_must_finish() -> None:
    worker = PrefillWorker(D1, ranks=2)
    computed(worker)
    transfer = worker.transfers[0].transfer_id
    for _ in range(2):
        worker.handle(events.TransferFinished(transfer=transfer, rank=1, ok=True))
    assert not worker.commits
    worker.handle(events.TransferFinished(transfer=transfer, rank=0, ok=True))
    assert worker.commits[0][1].completed_ranks == 2


def test_a_first_token_that_ends_the_request() -> None:
    worker = PrefillWorker(D1)
    computed(worker, max_tokens=1)
    assert isinstance(worker.notes[1], FinishedNote)
    assert worker.cancelled == [worker.transfers[0].transfer_id]
    assert [release.writes_closed for _, release in worker.releases] == [False]
    assert not worker.core.is_empty()
    worker.transferred()
    assert worker.closed == [(D1, 1)]
    worker.check_empty()


def test_a_failed_transfer_goes_elsewhere_from_the_kv_held() -> None:
    worker = PrefillWorker(D1, D2)
    computed(worker)
    first_peer = worker.reserves[0][0]
    worker.transferred(ok=False)
    assert (worker.releases[-1][0], worker.releases[-1][1].writes_closed) == (first_peer, True)
    worker.grant()
    assert worker.transfers[-1].slot == -1
    assert worker.transfers[-1].computed_tokens == 10
    assert worker.executor.last_plan == 1
    worker.transferred()
    worker.accept()
    assert isinstance(worker.notes[1], HandedOffNote)
    worker.check_empty()


def test_a_grant_of_a_lease_whose_write_failed_does_not_vouch_for_its_writes() -> None:
    """The second Reserve overtook the Release, so the decode worker answers with the lease that is about to end."""
    worker = PrefillWorker(D1)
    computed(worker)
    worker.transferred(ok=False, write_failed=True)
    peer, reserve = worker.reserves[-1]
    again = events.Granted(
        peer=peer, key=reserve.key, lease=LeaseId(1), ttl=10.0, matched_blocks=0, block_ids=(0, 1, 2)
    )
    worker.handle(again)
    said = [(release.lease, release.writes_closed, release.write_failed) for _, release in worker.releases]
    assert said == [(1, True, True), (1, True, True)]


def test_a_refused_commit_goes_elsewhere() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.transferred()
    peer, commit = worker.commits[0]
    worker.handle(
        events.Refused(peer=peer, key=commit.request.key, reason=RefuseReason.UNKNOWN_LEASE, lease=commit.lease)
    )
    worker.grant()
    worker.transferred()
    worker.accept()
    assert isinstance(worker.notes[1], HandedOffNote)
    worker.check_empty()


def test_a_commit_without_answer_is_taken_back() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.transferred()
    worker.pass_time(2.0)
    worker.handle(events.DecodeHeartbeat(peer=D1, heartbeat=Heartbeat()))
    worker.pass_time(2.0)
    worker.handle(events.DecodeHeartbeat(peer=D1, heartbeat=Heartbeat()))
    worker.pass_time(2.0)
    assert [release.aborted for _, release in worker.releases] == [True]
    assert len(worker.reserves) == 2


def test_a_lease_lost_in_mid_prefill_is_replaced_after_the_first_token() -> None:
    worker = PrefillWorker(D1, D2, max_batch_tokens=4)
    worker.submit(make_request(1, 10), 1)
    peer, reserve = worker.reserves[0]
    lease = worker.grant()
    worker.handle(events.LeaseEnded(peer=peer, lease=lease, key=reserve.key, reason="test"))
    assert worker.cancelled
    worker.run()
    assert worker.tokens[1]
    assert len(worker.reserves) == 2
    worker.transferred(ok=False)
    assert worker.closed == [(peer, lease)]
    worker.grant()
    worker.transferred()
    worker.accept()
    worker.check_empty()


def test_blocks_stay_pinned_while_an_aborted_transfer_is_out() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.handle(events.Aborted(stream=STREAM, key=make_request(1).key))
    note = worker.notes[1]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.ABORTED
    assert worker.core.snapshot().blocks["running"] == 3
    assert worker.releases[-1][1].aborted
    worker.handle(events.Aborted(stream=STREAM, key=make_request(1).key))
    worker.transferred(ok=False)
    assert worker.closed == [(D1, 1)]
    worker.check_empty()


def test_an_abort_follows_the_request_to_its_decode_worker() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.transferred()
    worker.accept()
    worker.handle(events.Aborted(stream=STREAM, key=make_request(1).key))
    peer, release = worker.releases[-1]
    assert (peer, release.lease, release.aborted) == (D1, 1, True)
    worker.pass_time(30)
    worker.pass_time(30)
    before = len(worker.releases)
    worker.handle(events.Aborted(stream=STREAM, key=make_request(1).key))
    assert len(worker.releases) == before


def test_a_grant_after_an_abort_is_given_back() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    worker.handle(events.Aborted(stream=STREAM, key=make_request(1).key))
    assert [(release.lease, release.writes_closed) for _, release in worker.releases] == [(0, False)]
    lease = worker.grant()
    assert (worker.releases[-1][1].lease, worker.releases[-1][1].writes_closed) == (lease, True)
    assert not worker.plans
    worker.check_empty()


def test_deadline_frees_everything() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10, deadline=3.0), 1)
    worker.grant()
    worker.submit(make_request(2, 10, deadline=3.0), 2)
    worker.pass_time(3.1)
    assert {note.code for note in worker.notes.values() if isinstance(note, FailedNote)} == {FailureCode.DEADLINE}
    assert len(worker.notes) == 2
    worker.transferred(ok=False, position=0)
    worker.run()
    worker.check_empty()


def test_a_duplicate_submit_only_binds_the_stream() -> None:
    worker = PrefillWorker(D1)
    worker.submit(make_request(1, 10), 1)
    worker.submit(make_request(1, 10), 9)
    worker.grant()
    worker.run()
    assert list(worker.tokens) == [9]
    assert len(worker.reserves) == 1


def test_a_newer_epoch_takes_the_place_of_an_older_one() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.submit(make_request(1, 10, epoch=2), 2)
    note = worker.notes[1]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.ABORTED
    assert worker.reserves[-1][1].key.epoch == 2
    worker.submit(make_request(1, 10, epoch=1), 3)
    assert isinstance(worker.notes[3], FailedNote)


def test_a_broken_stream_has_five_seconds() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.handle(events.StreamClosed(stream=STREAM))
    worker.pass_time(4.0)
    other = StreamId(2)
    worker.handle(events.StreamOpened(stream=other))
    worker.tokens.clear()
    worker.handle(events.Attached(stream=other, handle=5, key=make_request(1).key, next_index=0))
    assert worker.tokens[5] == [sampled_token(1, 0)]
    assert worker.reserved[-1].handle == 5
    worker.handle(events.StreamClosed(stream=other))
    worker.pass_time(5.1)
    worker.transferred(ok=False)
    worker.check_empty()


def test_the_hand_off_is_told_to_a_router_that_comes_back() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.handle(events.StreamClosed(stream=STREAM))
    worker.transferred()
    worker.accept()
    worker.handle(events.Attached(stream=StreamId(2), handle=5, key=make_request(1).key, next_index=1))
    assert isinstance(worker.notes[5], HandedOffNote)
    worker.check_empty()


def test_too_large_for_every_decode_worker() -> None:
    worker = PrefillWorker()
    worker.link(D1, pool=4)
    worker.submit(make_request(1, 20), 1)
    note = worker.notes[1]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.INVALID_ARGUMENT
    assert "16" in note.reason


def test_heartbeats_agree_on_leases() -> None:
    worker = PrefillWorker(D1)
    computed(worker)
    worker.pass_time(1.0)
    sent = worker.outboxes[-1].decodes[D1].heartbeat
    assert sent is not None
    assert sent.lease_count == 1
    worker.pass_time(2.0)
    worker.handle(events.DecodeHeartbeat(peer=D1, heartbeat=Heartbeat(full=True, lease_count=1, lease_ids=(77,))))
    assert worker.closed == [(D1, 77)]
    assert worker.cancelled, "the decode worker no longer holds the lease"
