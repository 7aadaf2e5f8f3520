"""One turn takes in a batch and acts once. No threads but where the thread itself is the matter."""

import threading

import pytest
from core_requests import expected_tokens, make_config, make_request, prepared
from worker_fakes import FakeExecutors, FakeOutlet, FakePreparation, FakeRecorder

from pdcluster_worker.core import events
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.ids import PeerId, StreamId
from pdcluster_worker.core.wire import FailureCode
from pdcluster_worker.engine.items import AddPeer, ExecutorExited, ExecutorSaid, Item, Question, RemovePeer, Stop
from pdcluster_worker.engine.loop import EngineLoop
from pdcluster_worker.errors import ExecutorError, StateError, TransportError
from pdcluster_worker.ipc.messages import FromExecutor, TransferReport

STREAM = StreamId(1)


class Bench:
    """A loop among fakes, driven by hand on the test's thread."""

    def __init__(self) -> None:
        self.now = 100.0
        self.executors = FakeExecutors()
        self.prepare = FakePreparation()
        self.outlet = FakeOutlet()
        self.recorder = FakeRecorder()
        self.core = Core(make_config(), self.now)
        self.loop = EngineLoop(
            self.core, self.executors, self.prepare, self.outlet, self.recorder, clock=lambda: self.now
        )

    def turn(self, *items: Item) -> None:
        self.loop.turn(list(items))

    def submit(self, number: int = 1, handle: int = 1) -> None:
        request = make_request(number)
        self.turn(events.StreamOpened(stream=STREAM), events.Submitted(stream=STREAM, handle=handle, request=request))

    def run(self) -> None:
        """Prepares what is to be prepared, then answers plans until there are none."""
        self.turn(*(prepared(request) for request in self.prepare.submitted))
        while answers := self.executors.answer():
            self.turn(*(ExecutorSaid(message) for message in answers))

    def tokens(self) -> list[int]:
        return [token for out in self.outlet.delivered for router in out.routers.values() for token in router.tokens]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_request_goes_through(bench: Bench) -> None:
    bench.submit()
    assert [request.epoch for request in bench.prepare.submitted] == [1]
    bench.run()
    assert bench.tokens() == expected_tokens(make_request(1))
    assert bench.core.is_empty()


def test_one_turn_is_one_message_to_each(bench: Bench) -> None:
    requests = [make_request(number) for number in range(5)]
    bench.turn(
        events.StreamOpened(stream=STREAM),
        *(events.Submitted(stream=STREAM, handle=n, request=request) for n, request in enumerate(requests)),
    )
    assert len(bench.outlet.delivered) == 1
    assert bench.outlet.delivered[0].routers[STREAM].accepted == [0, 1, 2, 3, 4]
    bench.turn(*(prepared(request) for request in requests))
    assert len(bench.executors.sent) == 1
    assert bench.executors.sent[0].sent_at == bench.now


def test_an_empty_turn_says_nothing(bench: Bench) -> None:
    bench.turn()
    before = len(bench.outlet.delivered)
    bench.turn()
    assert len(bench.outlet.delivered) == before
    assert not bench.executors.sent


def test_an_abort_skips_the_preparation(bench: Bench) -> None:
    bench.submit()
    key = make_request(1).key
    bench.turn(events.Aborted(stream=STREAM, key=key))
    assert bench.prepare.skipped == [key]
    bench.turn(prepared(make_request(1)))
    assert bench.core.is_empty()


def test_gauges_follow_at_most_ten_times_a_second(bench: Bench) -> None:
    bench.turn()
    assert len(bench.recorder.snapshots) == 1
    for _ in range(5):
        bench.now += 0.01
        bench.turn(events.StreamOpened(stream=STREAM))
    assert len(bench.recorder.snapshots) == 1
    bench.now += 0.1
    bench.turn()
    assert len(bench.recorder.snapshots) == 2, "the last change is told, though nothing new happens"


def test_gauges_follow_what_time_alone_changes(bench: Bench) -> None:
    bench.submit()
    bench.turn(prepared(make_request(1)))
    bench.now += 1.0
    bench.turn()
    assert bench.recorder.snapshots[-1].requests_running == 1
    bench.now = make_request(1).deadline + 1.0
    bench.turn()
    assert bench.recorder.snapshots[-1].requests_running == 0


def test_the_executors_death_fails_requests_in_the_last_turn(bench: Bench) -> None:
    bench.submit()
    bench.turn(prepared(make_request(1)))
    bench.turn(ExecutorExited(0, "killed"))
    failed = [note for out in bench.outlet.delivered for router in out.routers.values() for note in router.failed]
    assert [(note.code, note.was_running) for note in failed] == [(FailureCode.EXECUTOR_LOST, True)]
    assert bench.loop.failure == "killed"


def test_an_executor_that_does_not_read_counts_as_dead(bench: Bench) -> None:
    bench.submit()
    bench.executors.broken = ExecutorError("does not read")
    bench.turn(prepared(make_request(1)))
    bench.loop.run()
    assert bench.loop.failure == "does not read"


def test_what_follows_the_executors_death_changes_nothing(bench: Bench) -> None:
    bench.turn(ExecutorExited(0, "first"), ExecutorExited(0, "second"))
    assert bench.loop.failure == "first"


def test_a_question_is_answered_and_its_mistakes_stay_with_the_asker(bench: Bench) -> None:
    good, bad = Question(lambda core: core.is_empty()), Question(lambda _core: 1 // 0)
    bench.turn(good, bad)
    assert good.answer.result(0) is True
    with pytest.raises(ZeroDivisionError):
        bad.answer.result(0)


def test_a_peer_is_added_when_the_executor_says_so(bench: Bench) -> None:
    item, other = AddPeer(PeerId("decode"), ()), AddPeer(PeerId("other"), ())
    bench.turn(item, other)
    assert not item.added.done()
    bench.turn(ExecutorSaid(FromExecutor(rank=0, peers_added=("decode",), peers_failed=(("other", "no route"),))))
    assert item.added.result(0) is None
    with pytest.raises(TransportError, match="no route"):
        other.added.result(0)
    bench.turn(RemovePeer(PeerId("decode")))
    assert bench.executors.sent[-1].remove_peers == ("decode",)


def test_a_peer_of_other_ranks_is_refused_at_once(bench: Bench) -> None:
    bench.executors.refuse_peers = True
    item = AddPeer(PeerId("decode"), ())
    bench.turn(item)
    with pytest.raises(TransportError):
        item.added.result(0)


def test_reports_count_once_per_rank(bench: Bench) -> None:
    report = TransferReport(1, True, 10, 0.1)
    bench.turn(ExecutorSaid(FromExecutor(rank=0, transfers=(report,))))
    assert len(bench.recorder.heard) == 1


def test_the_core_belongs_to_one_thread(bench: Bench) -> None:
    bench.turn()
    caught: list[Exception] = []

    def intrude() -> None:
        try:
            bench.loop.turn([])
        except StateError as error:
            caught.append(error)

    thread = threading.Thread(target=intrude)
    thread.start()
    thread.join(5)
    assert len(caught) == 1


def test_run_ends_with_stop_and_leaves_nobody_waiting(bench: Bench) -> None:
    thread = threading.Thread(target=bench.loop.run)
    thread.start()
    assert bench.loop.ask(lambda core: core.is_empty()).result(5) is True
    bench.loop.post(Stop())
    thread.join(5)
    assert not thread.is_alive()
    assert bench.loop.failure == ""


def test_questions_behind_the_end_are_refused(bench: Bench) -> None:
    bench.loop.post(Stop())
    late = [bench.loop.ask(lambda core: core.is_empty()) for _ in range(3)]
    peer = AddPeer(PeerId("x"), ())
    bench.loop.post(peer)
    bench.loop.run()
    for future in (*late, peer.added):
        assert future.done()


def test_a_bug_in_the_core_ends_the_loop_and_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_event: events.Event, _now: float) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(bench.core, "handle", broken)
    bench.loop.post(events.StreamOpened(stream=STREAM))
    bench.loop.run()
    assert "KeyError" in bench.loop.failure
