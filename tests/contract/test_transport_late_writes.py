"""Late writes over NIXL: what a stopped, removed or killed process still brings about, and what a fence proves."""

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from kv_endpoints import Call, ProcessEndpoint, writes_between

from pdcluster_worker.kv.protocol import KVProtocol

SIZE = 32 << 20
CHUNK = 1 << 20
EVERYTHING = list(range(SIZE // CHUNK))
DEADLINE = 15.0
LONG_ENOUGH = 1.0
"""For a late write to show itself."""

MakeEndpoint = Callable[[KVProtocol], ProcessEndpoint]


@pytest.fixture
def make_endpoint(tmp_path: Path) -> Iterator[MakeEndpoint]:
    made: list[ProcessEndpoint] = []

    def make(protocol: KVProtocol) -> ProcessEndpoint:
        made.append(ProcessEndpoint(tmp_path, SIZE, protocol))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


def connected(make: MakeEndpoint, protocol: KVProtocol) -> tuple[ProcessEndpoint, ProcessEndpoint]:
    """A sender full of sevens and a receiver of zeros, with one write done between them."""
    sender, receiver = make(protocol), make(protocol)
    assert sender.call(Call("add", peer="receiver", metadata=receiver.metadata)).error == ""
    posted = sender.call(writes_between(sender, receiver, [0], [0], CHUNK))
    assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "done"
    sender.call(Call("release", handle=posted.handle))
    sender.memory[:] = 7
    return sender, receiver


def wait_long_enough() -> None:
    threading.Event().wait(LONG_ENOUGH)


@pytest.mark.parametrize("protocol", [KVProtocol.TCP, KVProtocol.IPC])
def test_after_a_fence_a_killed_sender_changes_nothing(make_endpoint: MakeEndpoint, protocol: KVProtocol) -> None:
    sender, receiver = connected(make_endpoint, protocol)
    receiver.signal(signal.SIGSTOP)
    sender.call(writes_between(sender, receiver, EVERYTHING, EVERYTHING, CHUNK))
    sender.kill()
    at_death = receiver.memory.copy()
    receiver.signal(signal.SIGCONT)
    assert receiver.call(Call("drain", timeout=DEADLINE)).drained
    after_fence = receiver.memory.copy()
    wait_long_enough()
    assert np.array_equal(receiver.memory, after_fence)
    assert after_fence.any(), "nothing was in flight: the test shows nothing"
    if protocol is KVProtocol.TCP:
        assert not np.array_equal(at_death, after_fence), "nothing landed after the death: the test shows nothing"


def test_a_fence_during_traffic_of_a_living_sender_ends(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = connected(make_endpoint, KVProtocol.TCP)
    call = writes_between(sender, receiver, EVERYTHING, EVERYTHING, CHUNK)
    call.repeat = 20
    posted = sender.call(call)
    assert receiver.call(Call("drain", timeout=DEADLINE)).drained
    assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "done"


def test_writes_to_a_removed_peer_stay_pending_while_they_can_land(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = connected(make_endpoint, KVProtocol.TCP)
    receiver.signal(signal.SIGSTOP)
    posted = sender.call(writes_between(sender, receiver, EVERYTHING, EVERYTHING, CHUNK))
    sender.call(Call("remove", peer="receiver"))
    assert sender.call(Call("wait", handle=posted.handle, timeout=LONG_ENOUGH)).state == "pending"
    receiver.signal(signal.SIGCONT)
    assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "done"
    assert (receiver.memory == 7).all()
    sender.call(Call("release", handle=posted.handle))
    assert sender.call(Call("add", peer="receiver", metadata=receiver.metadata)).error == ""


def test_writes_to_a_removed_peer_fail_when_it_dies(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = connected(make_endpoint, KVProtocol.TCP)
    receiver.signal(signal.SIGSTOP)
    posted = sender.call(writes_between(sender, receiver, EVERYTHING, EVERYTHING, CHUNK))
    sender.call(Call("remove", peer="receiver"))
    receiver.kill()
    assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "failed"


def test_a_stopped_peer_keeps_its_writes_pending_and_then_takes_them(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = connected(make_endpoint, KVProtocol.TCP)
    receiver.signal(signal.SIGSTOP)
    posted = sender.call(writes_between(sender, receiver, EVERYTHING, EVERYTHING, CHUNK))
    assert sender.call(Call("wait", handle=posted.handle, timeout=LONG_ENOUGH)).state == "pending"
    receiver.signal(signal.SIGCONT)
    assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "done"
    assert (receiver.memory == 7).all()
