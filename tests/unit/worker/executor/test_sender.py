"""The sender's desk over the in-process transport, with a clock of the test's own."""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import StateError
from pdcluster_worker.executor.commands import (
    Activate,
    AddPeer,
    Cancel,
    Command,
    DropSlots,
    LayerWritten,
    Register,
    RemovePeer,
    Stop,
)
from pdcluster_worker.executor.sender import LIFETIME_GUARD_SECONDS, TransferDesk, find_mismatch
from pdcluster_worker.ipc.messages import PeerInfo, TransferReport
from pdcluster_worker.kv.inproc import Fabric, InProcessTransport
from pdcluster_worker.kv.layout import KVLayout
from pdcluster_worker.kv.transport import WriteHandle, Writes, WriteState

LAYOUT = KVLayout("m", "float32", layers=2, num_blocks=8, kv_heads=1, block_size=4, head_dim=4)


@dataclass
class Memory:
    words: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]

    @property
    def regions(self) -> tuple[Region, ...]:
        return tuple(Region(layer.ctypes.data, layer.size, 0) for layer in self.words)

    @classmethod
    def filled(cls, value: int) -> "Memory":
        return cls(np.full((LAYOUT.layers, LAYOUT.region_bytes), value, dtype=np.uint8))

    def blocks(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        return self.words.reshape(LAYOUT.layers, 2, LAYOUT.num_blocks, LAYOUT.block_bytes)


class Bench:
    """A desk, its memory, and one peer's."""

    def __init__(self) -> None:
        self.now = 0.0
        self.fabric = Fabric()
        self.own, self.peers = Memory.filled(7), {"p": Memory.filled(0)}
        self.transport = InProcessTransport("own", self.fabric)
        self.transport.register(self.own.regions)
        self.desk = TransferDesk(self.transport, LAYOUT, self.own.regions, lambda: self.now)
        self.reports: list[TransferReport] = []
        self.added: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.turn(AddPeer(self.info("p")))

    def info(self, name: str) -> PeerInfo:
        other = InProcessTransport(f"agent-{name}", self.fabric)
        other.register(self.peers[name].regions)
        regions = self.peers[name].regions
        return PeerInfo(
            name, RankMetadata(0, other.agent_name, other.metadata(), regions, LAYOUT.num_blocks, LAYOUT.block_bytes)
        )

    def turn(self, *commands: Command) -> None:
        for command in commands:
            self.desk.handle(command)
        self.desk.post_due()
        self.desk.poll()
        for message in self.desk.take_reports(0):
            self.reports += message.transfers
            self.added += message.peers_added
            self.failed += message.peers_failed


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.turn(Stop())
    assert bench.desk.stopped, "a transfer has not ended"


def spec(number: int = 1, slot: int = 0, tokens: int = 8, peer: str = "p", computed: int = 0) -> TransferSpec:
    blocks = tuple(range(-(-tokens // 4)))
    return TransferSpec(number, slot, peer, 0, blocks, tuple(reversed(blocks)), tokens, computed, 0.0)


def test_blocks_go_layer_by_layer_as_they_are_computed(bench: Bench) -> None:
    bench.turn(Register(spec(), 10.0), Activate(1, 0))
    bench.turn(LayerWritten(0, {0: 5}))
    there = bench.peers["p"].blocks()
    assert (there[0, :, 1] == 7).all()
    assert not there[0, :, 0].any()
    assert not there[1].any()
    bench.turn(LayerWritten(1, {0: 5}), LayerWritten(0, {0: 8}), LayerWritten(1, {0: 8}))
    assert (there[:, :, :2] == 7).all()
    assert not there[:, :, 2:].any()
    assert [(report.ok, report.bytes) for report in bench.reports] == [(True, 8 * LAYOUT.block_bytes)]


def test_what_is_computed_already_goes_at_once(bench: Bench) -> None:
    bench.turn(Register(spec(slot=-1, computed=8), 10.0))
    assert bench.reports[0].ok


def test_progress_of_another_request_in_the_slot_does_not_count(bench: Bench) -> None:
    bench.turn(Register(spec(), 10.0), LayerWritten(0, {0: 8}), DropSlots((0,)))
    assert not bench.peers["p"].words.any()
    bench.turn(Activate(1, 0), LayerWritten(0, {0: 8}), LayerWritten(1, {0: 8}))
    assert bench.reports[0].ok


def test_nothing_is_posted_within_the_guard_of_the_deadline(bench: Bench) -> None:
    bench.turn(Register(spec(), 10.0), Activate(1, 0))
    assert bench.desk.next_wait() == pytest.approx(10.0 - LIFETIME_GUARD_SECONDS)
    bench.now = 10.0 - LIFETIME_GUARD_SECONDS
    bench.turn(LayerWritten(0, {0: 8}))
    assert not bench.peers["p"].words.any()
    assert bench.reports[0].reason == "its lifetime is over"


def test_each_of_several_lifetimes_ends_at_its_own_time(bench: Bench) -> None:
    lifetimes = {1: 30.0, 2: 10.0, 3: 20.0}
    for number, deadline in lifetimes.items():
        bench.turn(Register(msgspec.structs.replace(spec(), transfer_id=number), deadline), Activate(number, 0))
    for number in (2, 3, 1):
        last = lifetimes[number] - LIFETIME_GUARD_SECONDS
        assert bench.desk.next_wait() == pytest.approx(last - bench.now)
        bench.now = last
        bench.turn()
        assert (bench.reports[-1].transfer_id, bench.reports[-1].reason) == (number, "its lifetime is over")
    assert len(bench.reports) == 3
    assert bench.desk.next_wait() is None
    assert bench.desk.next_wait() is None


@pytest.mark.parametrize(
    ("command", "reason"),
    [(Cancel(1), "cancelled"), (RemovePeer("p"), "its peer was removed"), (DropSlots((0,)), "left its slot")],
)
def test_an_ended_transfer_posts_nothing_more(bench: Bench, command: Command, reason: str) -> None:
    bench.turn(Register(spec(), 10.0), Activate(1, 4))
    bench.turn(command, LayerWritten(0, {0: 8}), LayerWritten(1, {0: 8}), Cancel(1))
    assert reason in bench.reports[0].reason
    assert not bench.peers["p"].blocks()[:, :, 0].any()
    assert len(bench.reports) == 1


class Held:
    """Stands in the way of a transport's `poll`: nothing is final before `let_go`, with the state given there."""

    def __init__(self, transport: InProcessTransport, monkeypatch: pytest.MonkeyPatch) -> None:
        self.posts = 0
        self._state: WriteState | None = WriteState.PENDING
        poll, post = transport.poll, transport.post

        def counted(peer: str, writes: Writes) -> WriteHandle:
            self.posts += 1
            return post(peer, writes)

        def held(handle: WriteHandle) -> WriteState:
            if self._state is WriteState.PENDING:
                return WriteState.PENDING
            done = poll(handle)
            return self._state or done

        monkeypatch.setattr(transport, "post", counted)
        monkeypatch.setattr(transport, "poll", held)

    def let_go(self, state: WriteState | None = None) -> None:
        self._state = state


def two_at_once(bench: Bench) -> None:
    """Two requests of one step, into different blocks of one peer."""
    second = TransferSpec(2, 1, "p", 0, (2, 3), (4, 5), 8, 0, 0.0)
    bench.turn(Register(spec(), 10.0), Activate(1, 0), Register(second, 10.0), Activate(2, 0))
    bench.turn(LayerWritten(0, {0: 8, 1: 8}), LayerWritten(1, {0: 8, 1: 8}))


def test_transfers_of_one_step_share_a_post(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(bench.transport, monkeypatch)
    two_at_once(bench)
    assert held.posts == 1
    held.let_go()
    bench.turn()
    assert [(report.ok, report.bytes) for report in bench.reports] == [(True, 8 * LAYOUT.block_bytes)] * 2
    there = bench.peers["p"].blocks()
    assert (there[:, :, [0, 1, 4, 5]] == 7).all()
    assert not there[:, :, [2, 3, 6, 7]].any()


def test_a_failed_post_fails_all_that_shared_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(bench.transport, monkeypatch)
    two_at_once(bench)
    held.let_go(WriteState.FAILED)
    bench.turn()
    assert [report.reason for report in bench.reports] == ["a write failed"] * 2


def test_a_cancelled_transfer_stays_until_the_post_that_it_shares_is_final(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(bench.transport, monkeypatch)
    two_at_once(bench)
    bench.turn(Cancel(1))
    assert bench.reports == []
    held.let_go()
    bench.turn()
    assert {report.transfer_id: report.ok for report in bench.reports} == {1: False, 2: True}


def test_a_slot_may_be_dropped_once_its_prompt_is_computed(bench: Bench) -> None:
    bench.turn(Register(spec(), 10.0), Activate(1, 8), DropSlots((0,)))
    assert bench.reports[0].ok


def test_a_cancel_before_the_step_thread_gets_there(bench: Bench) -> None:
    bench.turn(Register(spec(), 10.0), Cancel(1))
    bench.turn(Activate(1, 8))
    assert [report.reason for report in bench.reports] == ["cancelled"]


def test_a_peer_that_is_gone_fails_its_transfers_and_no_others(bench: Bench) -> None:
    bench.peers["q"] = Memory.filled(0)
    bench.turn(AddPeer(bench.info("q")))
    del bench.fabric.agents["agent-p"]
    bench.turn(Register(spec(1, slot=-1, computed=8), 10.0), Register(spec(2, slot=-1, peer="q", computed=8), 10.0))
    assert {report.transfer_id: report.ok for report in bench.reports} == {1: False, 2: True}


def test_a_known_peer_added_again_replaces_itself(bench: Bench) -> None:
    bench.peers["p"] = Memory.filled(0)
    bench.turn(AddPeer(bench.info("p")))
    bench.turn(Register(spec(slot=-1, computed=8), 10.0))
    assert bench.added == ["p", "p"]
    assert (bench.peers["p"].blocks()[:, :, :2] == 7).all()


def test_the_same_transfer_twice_is_a_bug(bench: Bench) -> None:
    bench.turn(Register(spec(), 10.0))
    with pytest.raises(StateError):
        bench.desk.handle(Register(spec(), 10.0))


def test_a_peer_of_another_shape_is_refused(bench: Bench) -> None:
    good = bench.info("p").metadata
    shapes = [
        RankMetadata(0, "a", b"inproc", good.regions[:1], good.num_blocks, good.block_bytes),
        RankMetadata(0, "a", b"inproc", good.regions, good.num_blocks, good.block_bytes // 2),
        RankMetadata(0, "a", b"inproc", good.regions, good.num_blocks + 1, good.block_bytes),
    ]
    for shape in shapes:
        assert find_mismatch(shape, LAYOUT)
    bench.turn(AddPeer(PeerInfo("odd", shapes[0])))
    assert bench.failed[0][0] == "odd"


ACTIONS = st.one_of(
    st.builds(Activate, st.integers(1, 3), st.integers(0, 12)),
    st.builds(LayerWritten, st.integers(0, 1), st.dictionaries(st.integers(0, 2), st.integers(1, 12), max_size=3)),
    st.builds(DropSlots, st.tuples(st.integers(0, 2))),
    st.builds(Cancel, st.integers(1, 4)),
    st.just(RemovePeer("p")),
    st.floats(0, 3),
)


@settings(deadline=None)
@given(st.lists(ACTIONS, max_size=25))
def test_whatever_happens_each_transfer_is_reported_once(actions: list[Command | float]) -> None:
    bench = Bench()
    bench.turn(*(Register(spec(number, slot=number - 1, tokens=12), 5.0) for number in (1, 2, 3)))
    for action in actions:
        if isinstance(action, float):
            bench.now += action
            bench.turn()
        else:
            bench.turn(action)
    bench.turn(Stop())
    assert sorted(report.transfer_id for report in bench.reports) == [1, 2, 3]
    assert bench.desk.stopped
    assert all(report.bytes == 12 * LAYOUT.block_bytes for report in bench.reports if report.ok)
