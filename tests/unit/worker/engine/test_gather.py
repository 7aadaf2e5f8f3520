from concurrent.futures import Future

from pdcluster_worker.core.events import FenceDrained, StepDone, TransferFinished
from pdcluster_worker.core.ids import PeerId
from pdcluster_worker.engine.gather import RankGather
from pdcluster_worker.ipc.messages import FromExecutor, StepReport, TransferReport


def step(plan: int, seconds: float) -> StepReport:
    return StepReport(plan, [0], [7], {}, seconds, 0, 1)


def test_one_rank_passes_straight_through() -> None:
    gather = RankGather(1)
    (done,) = gather.events(FromExecutor(rank=0, steps=(step(1, 0.5),)))
    assert isinstance(done, StepDone)
    assert (done.plan, done.sampled.tokens, done.seconds) == (1, [7], 0.5)


def test_a_step_is_done_when_the_slowest_rank_is() -> None:
    gather = RankGather(2)
    assert gather.events(FromExecutor(rank=1, steps=(step(1, 0.9), step(2, 0.1)))) == []
    (done,) = gather.events(FromExecutor(rank=0, steps=(step(1, 0.5),)))
    assert isinstance(done, StepDone)
    assert (done.plan, done.seconds) == (1, 0.9)
    (done,) = gather.events(FromExecutor(rank=0, steps=(step(2, 0.5),)))
    assert isinstance(done, StepDone)
    assert done.plan == 2


def test_transfers_are_told_by_rank_and_before_steps() -> None:
    gather = RankGather(1)
    message = FromExecutor(rank=0, steps=(step(1, 0.5),), transfers=(TransferReport(4, False, 0, 0.0, "cut"),))
    first, second = gather.events(message)
    assert isinstance(first, TransferFinished)
    assert (first.transfer, first.rank, first.ok, first.reason) == (4, 0, False, "cut")
    assert isinstance(second, StepDone)


def test_a_fence_has_drained_when_all_ranks_say_so() -> None:
    gather = RankGather(2)
    assert gather.events(FromExecutor(rank=0, fences=(3,))) == []
    assert gather.events(FromExecutor(rank=0, fences=(3,))) == [], "twice the same rank is not two"
    assert gather.events(FromExecutor(rank=1, fences=(3,))) == [FenceDrained(fence=3)]


def test_a_peer_is_known_when_all_ranks_know_it() -> None:
    gather = RankGather(2)
    added: Future[None] = Future()
    gather.expect_peer(PeerId("d"), added)
    gather.events(FromExecutor(rank=0, peers_added=("d",)))
    assert not added.done()
    gather.events(FromExecutor(rank=1, peers_added=("d",)))
    assert added.result(0) is None


def test_the_executors_death_answers_who_waits() -> None:
    gather = RankGather(1)
    added: Future[None] = Future()
    gather.expect_peer(PeerId("d"), added)
    gather.executor_lost("killed")
    assert "killed" in str(added.exception(0))
    gather.events(FromExecutor(rank=0, peers_added=("d",)))


def test_an_answer_that_nobody_awaits_any_more_is_dropped() -> None:
    gather = RankGather(1)
    given_up: Future[None] = Future()
    gather.expect_peer(PeerId("d"), given_up)
    given_up.cancel()
    assert gather.events(FromExecutor(rank=0, peers_added=("d",))) == []
