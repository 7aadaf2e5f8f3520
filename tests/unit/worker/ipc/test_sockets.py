"""The typed ends: what they carry, what they refuse, what they leave behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from pdcluster_worker.core.plan import StepPlan
from pdcluster_worker.errors import ExecutorError
from pdcluster_worker.ipc import sockets
from pdcluster_worker.ipc.messages import ToExecutor
from pdcluster_worker.ipc.sockets import Receiver, Sender

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.term()


def test_messages_arrive_as_sent_and_the_binder_removes_its_file(context: Context, tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/plan"
    sender: Sender[ToExecutor] = Sender(context, address, bind=True, timeout=1.0)
    receiver = Receiver(context, address, bind=False, message_type=ToExecutor)
    message = ToExecutor(plans=(StepPlan(1, slots=(1,), starts=(0,), counts=(4,), samples=(True,)),), fences=(3,))
    sender.send(message)
    assert receiver.receive() == message
    assert receiver.receive_now() is None
    receiver.close()
    sender.close(linger=0)
    assert list(tmp_path.iterdir()) == []


def test_a_message_that_does_not_decode_is_an_error(context: Context) -> None:
    receiver = Receiver(context, "inproc://x", bind=True, message_type=ToExecutor)
    with context.socket(zmq.PUSH) as raw:
        raw.connect("inproc://x")
        raw.send(b"\xc1 no msgpack")
        with pytest.raises(ExecutorError, match="does not decode"):
            receiver.receive()
    receiver.close()


def test_a_message_over_the_limit_is_not_sent(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MAX_MESSAGE_BYTES", 100)
    sender: Sender[ToExecutor] = Sender(context, "inproc://y", bind=True, timeout=1.0)
    with pytest.raises(ExecutorError, match="exceeds the limit of 100"):
        sender.send(ToExecutor(remove_peers=("p" * 200,)))
    sender.close(linger=0)


def test_a_reader_that_does_not_read_is_an_error_within_the_timeout(context: Context) -> None:
    sender: Sender[ToExecutor] = Sender(context, "inproc://z", bind=True, timeout=0.05)
    with pytest.raises(ExecutorError, match="does not read"):
        sender.send(ToExecutor())
    sender.close(linger=0)
