"""The small parts of the core, each by itself."""

import hashlib

import pytest

from pdcluster_worker.core.blocks import BlockPool, Holder
from pdcluster_worker.core.credits import Credits, divide
from pdcluster_worker.core.hashing import block_hashes
from pdcluster_worker.core.ids import LeaseId, PeerId
from pdcluster_worker.core.lease_set import LeaseSet
from pdcluster_worker.core.recent import Recent
from pdcluster_worker.core.state import TRANSITIONS, RequestState
from pdcluster_worker.core.timers import Timers
from pdcluster_worker.core.wire import Heartbeat
from pdcluster_worker.errors import StateError

TOKENS = b"".join(token.to_bytes(4, "little") for token in range(10))


def test_block_hashes_are_chained_and_seeded() -> None:
    hashes = block_hashes(TOKENS, 4, "model", "layout", "")
    assert len(hashes) == 64
    seed = hashlib.sha256(b"".join(len(part).to_bytes(8, "little") + part for part in (b"model", b"layout", b"")))
    first = hashlib.sha256(seed.digest() + TOKENS[:16]).digest()
    assert hashes == first + hashlib.sha256(first + TOKENS[16:32]).digest()
    others = {
        block_hashes(TOKENS, 4, *names) for names in (("m", "layout", ""), ("model", "l", ""), ("model", "layout", "s"))
    }
    assert len(others | {hashes}) == 4
    assert block_hashes(TOKENS[:12], 4, "model", "layout", "") == b""


def test_the_oldest_idle_prefix_goes_first_and_its_tail_before_its_head() -> None:
    pool = BlockPool(4)
    old, new = block_hashes(TOKENS, 4, "a", "", ""), block_hashes(TOKENS, 4, "b", "", "")
    for hashes in (old, new):
        blocks = pool.allocate(2, Holder.RUNNING)
        assert blocks is not None
        pool.index.add(blocks, hashes, 0, 2)
        pool.release(blocks)
    assert pool.counts()["prefix"] == 4
    pool.allocate(1, Holder.RUNNING)
    assert (len(pool.index.match(old, 2)), len(pool.index.match(new, 2))) == (1, 2)


def test_allocation_is_all_or_nothing() -> None:
    pool = BlockPool(4)
    assert pool.allocate(5, Holder.RUNNING) is None
    assert pool.available == 4


def test_releasing_twice_is_a_bug() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1, Holder.RUNNING)
    assert blocks is not None
    pool.release(blocks)
    with pytest.raises(StateError, match="twice"):
        pool.release(blocks)


def test_timers_are_never_early_and_one_per_owner() -> None:
    timers: Timers[str] = Timers()
    timers.set("a", 1.01)
    timers.set("b", 5.0)
    timers.set("b", 2.0)
    assert timers.due(1.0) == []
    assert timers.due(1.05) == ["a"]
    assert timers.next() == 2.0
    timers.cancel("b")
    assert timers.next() is None
    assert timers.due(100.0) == []
    assert len(timers) == 0


def test_lease_sets_compare_by_digest() -> None:
    one, two = LeaseSet(), LeaseSet()
    for lease in (1, 2, 3):
        one.add(LeaseId(lease))
    for lease in (3, 9, 2, 1):
        two.add(LeaseId(lease))
    assert not two.equals(one.heartbeat(full=False))
    two.discard(LeaseId(9))
    assert two.equals(one.heartbeat(full=False))
    assert one.heartbeat(full=True).lease_ids == (1, 2, 3)


def test_recent_forgets_after_one_to_two_periods() -> None:
    recent: Recent[str, int] = Recent(10.0, now=0.0)
    recent.put("a", 1)
    recent.expire(11.0)
    assert recent.get("a") == 1
    recent.put("b", 2)
    recent.expire(21.0)
    assert (recent.get("a"), recent.get("b")) == (None, 2)
    recent.expire(100.0)
    assert len(recent) == 0


@pytest.mark.parametrize(
    ("room", "demands"), [(100, [0, 0]), (100, [1000, 0, 0, 0]), (3, [5, 5, 5, 5]), (0, [1]), (7, [])]
)
def test_shares_never_exceed_the_room(room: int, demands: list[int]) -> None:
    shares = divide(room, demands)
    assert len(shares) == len(demands)
    assert sum(shares) <= room
    assert all(share >= 0 for share in shares)


def test_an_idle_link_keeps_a_foothold_and_demand_gets_the_most() -> None:
    assert divide(90, [1000, 6, 20]) == [64, 6, 20]
    busy, idle = divide(100, [1000, 0])
    assert busy > 90
    assert divide(100, [0, 0]) == [50, 50]
    assert divide(100, [10, 0])[1] > 0
    assert idle >= 0


def test_credits_are_cumulative_and_taken_back() -> None:
    credits = Credits()
    a, b = PeerId("a"), PeerId("b")
    credits.add(a)
    ((_, first),) = credits.offers(10, 4, False)
    assert (first.blocks, first.requests, first.sequence) == (10, 4, 1)
    credits.used(a, 3)
    assert credits.offers(7, 3, False) == [], "what was reserved is what is gone"
    credits.add(b)
    offers = dict(credits.offers(7, 3, False))
    assert offers[a].blocks < first.blocks
    assert sum(credits.outstanding()) <= 10
    credits.heard(a, Heartbeat(demand_blocks=90, demand_requests=30, reserved_blocks=5, reserved_requests=2))
    offers = dict(credits.offers(5, 2, False))
    assert offers[a].blocks - 5 > offers[b].blocks
    assert credits.outstanding()[0] <= 5


def test_every_state_but_the_ends_leads_somewhere() -> None:
    assert set(TRANSITIONS) == set(RequestState)
    ends = {state for state, after in TRANSITIONS.items() if not after}
    assert ends == {RequestState.HANDED_OFF, RequestState.FINISHED, RequestState.FAILED}
