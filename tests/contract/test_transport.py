"""What every KV transport promises: the in-process fake, and NIXL between two processes over shared memory and TCP."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from kv_endpoints import Call, LocalEndpoint, ProcessEndpoint, writes_between

from pdcluster_worker.core.wire import RankMetadata
from pdcluster_worker.kv.inproc import Fabric
from pdcluster_worker.kv.protocol import KVProtocol

SIZE = 8 << 20
CHUNK = 64 << 10
DEADLINE = 10.0

AnyEndpoint = LocalEndpoint | ProcessEndpoint
MakeEndpoint = Callable[[], AnyEndpoint]


@pytest.fixture(params=["inproc", KVProtocol.IPC, KVProtocol.TCP])
def make_endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeEndpoint]:
    made: list[AnyEndpoint] = []
    fabric = Fabric()

    def make() -> AnyEndpoint:
        if request.param == "inproc":
            made.append(LocalEndpoint(tmp_path, SIZE, fabric))
        else:
            made.append(ProcessEndpoint(tmp_path, SIZE, request.param))
        return made[-1]

    yield make
    for endpoint in made:
        endpoint.close()


def write(sender: AnyEndpoint, receiver: AnyEndpoint, chunks: list[int], places: list[int]) -> str:
    """Copies chunk i of the sender to place i of the receiver; returns the final state."""
    posted = sender.call(writes_between(sender, receiver, chunks, places, CHUNK))
    assert not posted.error
    state = sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state
    sender.call(Call("release", handle=posted.handle))
    return state


def add(sender: AnyEndpoint, receiver: AnyEndpoint) -> None:
    assert sender.call(Call("add", peer="receiver", metadata=receiver.metadata)).error == ""


def fill(endpoint: AnyEndpoint) -> None:
    endpoint.memory.view(np.uint32)[:] = np.arange(1, SIZE // 4 + 1, dtype=np.uint32)


def test_bytes_land_where_they_were_meant_to_and_nowhere_else(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = make_endpoint(), make_endpoint()
    add(sender, receiver)
    fill(sender)
    chunks, places = [5, 0, 127, 64, 65], [1, 100, 3, 90, 91]
    assert write(sender, receiver, chunks, places) == "done"
    expected = np.zeros_like(receiver.memory)
    for chunk, place in zip(chunks, places, strict=True):
        expected[place * CHUNK : (place + 1) * CHUNK] = sender.memory[chunk * CHUNK : (chunk + 1) * CHUNK]
    assert np.array_equal(receiver.memory, expected)


def test_writes_go_both_ways(make_endpoint: MakeEndpoint) -> None:
    one, other = make_endpoint(), make_endpoint()
    add(one, other)
    add(other, one)
    fill(one)
    assert write(one, other, [0, 1], [0, 1]) == "done"
    assert write(other, one, [0, 1], [10, 11]) == "done"
    assert np.array_equal(one.memory[: 2 * CHUNK], one.memory[10 * CHUNK : 12 * CHUNK])


def test_a_final_handle_stays_as_it_is_until_released(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = make_endpoint(), make_endpoint()
    add(sender, receiver)
    posted = sender.call(writes_between(sender, receiver, [0], [0], CHUNK))
    states = [sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state for _ in range(3)]
    assert states == ["done"] * 3
    receiver.kill()
    assert sender.call(Call("poll", handle=posted.handle)).state == "done"
    assert sender.call(Call("release", handle=posted.handle)).error == ""


def test_a_dead_peer_fails_writes_within_the_deadline(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = make_endpoint(), make_endpoint()
    add(sender, receiver)
    assert write(sender, receiver, [0], [0]) == "done"
    receiver.kill()
    for _ in range(3):
        posted = sender.call(writes_between(sender, receiver, [0], [0], CHUNK))
        if not posted.error:
            assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "failed"
            sender.call(Call("release", handle=posted.handle))


def test_a_removed_peer_takes_no_writes_and_may_come_back(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = make_endpoint(), make_endpoint()
    add(sender, receiver)
    assert write(sender, receiver, [0], [0]) == "done"
    sender.call(Call("remove", peer="receiver"))
    assert "not known" in sender.call(writes_between(sender, receiver, [0], [0], CHUNK)).error
    add(sender, receiver)
    fill(sender)
    assert write(sender, receiver, [1], [1]) == "done"
    assert np.array_equal(receiver.memory[CHUNK : 2 * CHUNK], sender.memory[CHUNK : 2 * CHUNK])


def test_a_restarted_peer_is_reached_under_its_new_agent(make_endpoint: MakeEndpoint) -> None:
    sender, first = make_endpoint(), make_endpoint()
    add(sender, first)
    assert write(sender, first, [0], [0]) == "done"
    first.kill()
    sender.call(Call("remove", peer="receiver"))
    second = make_endpoint()
    add(sender, second)
    fill(sender)
    assert write(sender, second, [2], [3]) == "done"
    assert np.array_equal(second.memory[3 * CHUNK : 4 * CHUNK], sender.memory[2 * CHUNK : 3 * CHUNK])


def test_two_peers_do_not_disturb_each_other(make_endpoint: MakeEndpoint) -> None:
    sender, dead, alive = make_endpoint(), make_endpoint(), make_endpoint()
    assert sender.call(Call("add", peer="receiver", metadata=dead.metadata)).error == ""
    assert write(sender, dead, [0], [0]) == "done"
    sender.call(Call("add", peer="other", metadata=alive.metadata))
    dead.kill()
    write_lost = sender.call(writes_between(sender, dead, [0], [0], CHUNK))
    fill(sender)
    posted = sender.call(writes_between(sender, alive, [4], [4], CHUNK, peer="other"))
    assert sender.call(Call("wait", handle=posted.handle, timeout=DEADLINE)).state == "done"
    assert np.array_equal(alive.memory[4 * CHUNK : 5 * CHUNK], sender.memory[4 * CHUNK : 5 * CHUNK])
    if not write_lost.error:
        assert sender.call(Call("wait", handle=write_lost.handle, timeout=DEADLINE)).state == "failed"


def test_unusable_metadata_is_refused(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = make_endpoint(), make_endpoint()
    good = receiver.metadata
    garbage = RankMetadata(0, good.agent_name, b"garbage", good.regions, good.num_blocks, good.block_bytes)
    assert sender.call(Call("add", peer="receiver", metadata=garbage)).error
    add(sender, receiver)
    assert "known already" in sender.call(Call("add", peer="receiver", metadata=good)).error


def test_a_fence_without_traffic_is_drained(make_endpoint: MakeEndpoint) -> None:
    sender, receiver = make_endpoint(), make_endpoint()
    add(sender, receiver)
    assert receiver.call(Call("drain", timeout=DEADLINE)).drained
    assert write(sender, receiver, [0], [0]) == "done"
    assert receiver.call(Call("drain", timeout=DEADLINE)).drained
