from pdcluster_worker.core.ids import StreamId
from pdcluster_worker.core.wire import Role
from pdcluster_worker.splitwise.inference_messages import PeerRecord
from pdcluster_worker.splitwise.peers import PeerDirectory

FIRST, SECOND = StreamId(1), StreamId(2)


def peer(number: int, instance: str = "i", **changes: object) -> PeerRecord:
    fields: dict[str, object] = {"role": Role.DECODE, "revision": "r", "layout_hash": "h", **changes}
    return PeerRecord(f"{instance}{number}", f"host:{number}", **fields)  # type: ignore[arg-type]


def directory() -> PeerDirectory:
    return PeerDirectory("r", "h", forget_after=30.0)


def test_only_decode_workers_that_fit_are_wanted() -> None:
    known = directory()
    known.update(
        FIRST,
        [
            peer(1),
            peer(2, role=Role.PREFILL),
            peer(3, role=Role.MIXED),
            peer(4, revision="other"),
            peer(5, layout_hash="other"),
            peer(6, layout_hash=""),
        ],
        0.0,
    )
    assert set(known.wanted(0.0)) == {"host:1", "host:6"}


def test_the_union_of_all_routers_counts() -> None:
    known = directory()
    known.update(FIRST, [peer(1)], 0.0)
    known.update(SECOND, [peer(2)], 0.0)
    assert set(known.wanted(0.0)) == {"host:1", "host:2"}
    known.update(FIRST, [], 1.0)
    known.update(SECOND, [peer(1), peer(2)], 2.0)
    assert known.next_expiry() is None


def test_a_dropped_peer_stays_for_a_while() -> None:
    known = directory()
    known.update(FIRST, [peer(1), peer(2)], 0.0)
    known.update(FIRST, [peer(2)], 10.0)
    assert known.next_expiry() == 40.0
    assert set(known.wanted(39.9)) == {"host:1", "host:2"}
    assert set(known.wanted(40.0)) == {"host:2"}
    assert known.next_expiry() is None


def test_a_peer_that_comes_back_is_not_forgotten() -> None:
    known = directory()
    known.update(FIRST, [peer(1)], 0.0)
    known.update(FIRST, [], 10.0)
    known.update(FIRST, [peer(1)], 20.0)
    assert known.next_expiry() is None
    assert set(known.wanted(100.0)) == {"host:1"}


def test_a_router_that_leaves_drops_its_peers() -> None:
    known = directory()
    known.update(FIRST, [peer(1)], 0.0)
    known.update(FIRST, None, 5.0)
    assert set(known.wanted(6.0)) == {"host:1"}
    assert known.wanted(35.0) == {}


def test_the_latest_instance_at_an_address_counts() -> None:
    known = directory()
    known.update(FIRST, [peer(1, "old")], 0.0)
    known.update(SECOND, [peer(1, "new")], 1.0)
    assert known.wanted(1.0)["host:1"].instance_id == "new1"
