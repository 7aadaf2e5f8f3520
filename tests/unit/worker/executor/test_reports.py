"""Reports that wait are joined into one message, and fences are answered when they have drained."""

import queue
import threading
from pathlib import Path

import pytest
import zmq

from pdcluster_worker.executor.fences import FenceKeeper
from pdcluster_worker.executor.reports import Reporter, join
from pdcluster_worker.ipc.messages import FromExecutor, StepReport, TransferReport
from pdcluster_worker.ipc.sockets import Receiver
from pdcluster_worker.kv.inproc import InProcessTransport


def step(number: int) -> StepReport:
    return StepReport(number, [], [], {}, 0.0, 0, 0)


def test_joining_keeps_everything_in_order() -> None:
    parts = [
        FromExecutor(1, loading=0.5),
        FromExecutor(1, steps=(step(1),), peers_added=("a",)),
        FromExecutor(1, transfers=(TransferReport(1, True, 5, 0.1),), fences=(4,)),
        FromExecutor(1, steps=(step(2),), peers_failed=(("b", "no"),), fatal="first"),
        FromExecutor(1, fatal="second"),
    ]
    whole = join(parts)
    assert [report.plan_id for report in whole.steps] == [1, 2]
    assert (whole.rank, whole.loading, whole.fences, whole.fatal) == (1, 0.5, (4,), "first")
    assert (whole.peers_added, whole.peers_failed) == (("a",), (("b", "no"),))
    assert join([parts[1]]) == parts[1]


def test_what_was_put_before_the_end_has_left_when_it_is_closed(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/reports"
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    receiver = Receiver(context, address, bind=True, message_type=FromExecutor)
    reporter = Reporter(address, rank=2)
    for number in range(50):
        reporter.put(FromExecutor(2, steps=(step(number),)))
    reporter.close()
    seen: list[int] = []
    while receiver.socket.poll(100):
        message = receiver.receive_now()
        assert message is not None
        seen += [report.plan_id for report in message.steps]
    assert seen == list(range(50))
    receiver.close()
    context.term()


class Stubborn(InProcessTransport):
    """Drains at the third attempt."""

    attempts = 0

    def drain(self, timeout: float) -> bool:
        self.attempts += 1
        return self.attempts >= 3


def test_a_fence_is_tried_until_it_has_drained() -> None:
    answers: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()
    transport = Stubborn("agent")
    keeper = FenceKeeper(transport, answers.put)
    keeper.ask(7)
    assert answers.get(timeout=10) == (7,)
    assert transport.attempts == 3
    keeper.close()


def test_a_fence_asked_during_a_drain_waits_for_the_next() -> None:
    begun, go_on = threading.Event(), threading.Event()
    answers: queue.SimpleQueue[tuple[int, ...]] = queue.SimpleQueue()

    class Slow(InProcessTransport):
        def drain(self, timeout: float) -> bool:
            begun.set()
            return go_on.wait(10)

    keeper = FenceKeeper(Slow("agent"), answers.put)
    keeper.ask(1)
    assert begun.wait(10)
    keeper.ask(2)
    go_on.set()
    assert [answers.get(timeout=10), answers.get(timeout=10)] == [(1,), (2,)]
    keeper.close()


@pytest.mark.parametrize("asked", [0, 1])
def test_a_keeper_ends_with_its_fences_unanswered(asked: int) -> None:
    class Never(InProcessTransport):
        def drain(self, timeout: float) -> bool:
            return False

    keeper = FenceKeeper(Never("agent"), lambda fences: pytest.fail("answered"))
    for fence in range(asked):
        keeper.ask(fence)
    keeper.close()
    assert not any(thread.name == "fences" for thread in threading.enumerate())
