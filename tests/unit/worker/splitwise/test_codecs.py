"""What goes over the wire comes back as it was; what breaks a limit does not come in."""

import random

import pytest
from core_requests import make_request

from pdcluster_proto.v1 import inference_pb2, splitwise_pb2
from pdcluster_worker.core import effects, events
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestId, RequestKey
from pdcluster_worker.core.request import OutputToken, TokenLogprob
from pdcluster_worker.core.wire import FailureCode, Heartbeat, RankMetadata, RefuseReason, Region, Role, Stages
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise import limits
from pdcluster_worker.splitwise.handshake_codec import decode_hello, decode_welcome, encode_hello, encode_welcome
from pdcluster_worker.splitwise.inference_codec import decode_router, decode_worker, encode_router, encode_worker
from pdcluster_worker.splitwise.inference_messages import (
    AbortItem,
    AttachItem,
    PeerRecord,
    RouterBatch,
    RouterHello,
    SubmitItem,
    WorkerBatch,
    WorkerHello,
    WorkerState,
)
from pdcluster_worker.splitwise.link_codec import (
    encode_to_decode,
    encode_to_prefill,
    read_from_decode,
    read_from_prefill,
)
from pdcluster_worker.splitwise.link_messages import LinkHello, LinkWelcome

PEER = PeerId("peer")
KEY = RequestKey(RequestId(b"k" * 16), 3)
NOW = 50.0
SAMPLING: dict[str, object] = {
    "temperature": 0.5,
    "top_p": 0.25,
    "top_k": 7,
    "min_p": 0.125,
    "presence_penalty": -0.5,
    "frequency_penalty": 1.5,
    "repetition_penalty": 1.25,
    "seed": (1 << 64) - 1,
    "logit_bias_ids": (1, 70_000),
    "logit_bias_values": (-100.0, 0.5),
    "logprobs": 5,
    "max_tokens": 17,
    "min_tokens": 3,
    "ignore_eos": True,
    "stop_token_ids": (2, 3),
}
REQUEST = make_request(7, 9, output=2, deadline=NOW + 12.5, cache_salt="salt", alone=True, **SAMPLING)
RANKS = (
    RankMetadata(0, "a/0", b"\x00\xff", (Region(1 << 47, 1 << 33, 2),), 9, 4096),
    RankMetadata(1, "a/1", b"", (), 9, 1),
)
STAGES = Stages(0.5, 0.25, 1.5, 2.5, 0.125, 3, 4.5, 1 << 40)
HEARTBEAT = Heartbeat(2, (1 << 64) - 1, True, (1, (1 << 64) - 2), 5, 6, 1 << 40, 8)


# --- routers ----------------------------------------------------------------------------------------


def test_a_routers_batch_comes_back() -> None:
    batch = RouterBatch(
        peers=(PeerRecord("i", "127.0.0.1:1", Role.DECODE, "r1", "hash"), PeerRecord("j", "[::1]:2", Role.MIXED)),
        submits=(SubmitItem(4, REQUEST),),
        attaches=(AttachItem(5, KEY, 6, prefill_lost=True),),
        aborts=(AbortItem(KEY), AbortItem(handle=9)),
        gone_pods=("pod-0", "pod-7"),
    )
    (data,) = encode_router(batch, NOW)
    assert decode_router(data, NOW) == batch


def test_a_hello_travels_alone() -> None:
    first, second = encode_router(RouterBatch(hello=RouterHello("r", "m"), peers=()), NOW)
    assert decode_router(first, NOW) == RouterBatch(hello=RouterHello("r", "m"))
    assert decode_router(second, NOW) == RouterBatch(peers=())


def test_a_deadline_travels_as_what_remains() -> None:
    (data,) = encode_router(RouterBatch(submits=(SubmitItem(1, REQUEST),)), NOW)
    there = decode_router(data, 1_000.0).submits[0].request
    assert there.deadline == pytest.approx(1_012.5)
    (late,) = encode_router(RouterBatch(submits=(SubmitItem(1, REQUEST),)), NOW + 100)
    assert decode_router(late, NOW).submits[0].request.deadline == NOW


def worker_out() -> effects.RouterOut:
    return effects.RouterOut(
        accepted=[1, 2],
        reserved=[effects.ReservedNote(1, PEER, 0.25)],
        handles=[1, 2, 1],
        indices=[0, 5, 1],
        tokens=[49_151, 0, 7],
        logprobs={2: TokenLogprob(-0.5, (7, 8), (-0.5, -1.5))},
        handed_off=[effects.HandedOffNote(1, PEER, STAGES)],
        finished=[effects.FinishedNote(2, "stop", 6, 0, STAGES), effects.FinishedNote(3, "length", 6, None, STAGES)],
        failed=[effects.FailedNote(4, FailureCode.EXECUTOR_LOST, "gone", 1.5, True)],
    )


def test_a_workers_batch_comes_back() -> None:
    state = WorkerState(1 << 40, 2.5, 0.5, 3, 4, 5, True, 6, True)
    (data,) = encode_worker(WorkerBatch(out=worker_out(), state=state))
    assert decode_worker(data) == WorkerBatch(out=worker_out(), state=state)


def test_a_workers_hello_comes_back() -> None:
    hello = WorkerHello("i", "n", Role.PREFILL, "r", "h", "m", 4096, 49_152, 64, 1 << 20)
    (data,) = encode_worker(WorkerBatch(hello=hello))
    assert decode_worker(data) == WorkerBatch(hello=hello)


def test_a_large_batch_is_split_and_ends_come_after_tokens() -> None:
    count = 200_000
    logprob = TokenLogprob(-1.0, tuple(range(20)), tuple(float(-i) for i in range(20)))
    out = effects.RouterOut(
        handles=[n % 256 for n in range(count)],
        indices=list(range(count)),
        tokens=[n % 50_000 for n in range(count)],
        logprobs=dict.fromkeys(range(0, count, 50), logprob),
        finished=[effects.FinishedNote(1, "stop", count, 5, STAGES)],
    )
    messages = encode_worker(WorkerBatch(out=out))
    assert len(messages) > 1
    assert max(map(len, messages)) < 1.3 * limits.SPLIT_BYTES
    together = effects.RouterOut()
    for number, data in enumerate(messages):
        part = decode_worker(data).out
        assert part is not None
        together.logprobs.update({len(together.tokens) + entry: value for entry, value in part.logprobs.items()})
        together.handles += part.handles
        together.indices += part.indices
        together.tokens += part.tokens
        assert bool(part.finished) is (number == len(messages) - 1)
    assert (together.handles, together.indices, together.tokens) == (out.handles, out.indices, out.tokens)
    assert together.logprobs == out.logprobs


def test_submits_are_split_in_order() -> None:
    big = make_request(1, [5] * 60_000, max_tokens=1)
    batch = RouterBatch(submits=tuple(SubmitItem(n, big) for n in range(10)), aborts=(AbortItem(KEY),))
    parts = [decode_router(data, NOW) for data in encode_router(batch, NOW)]
    assert len(parts) > 2
    assert [item.handle for part in parts for item in part.submits] == list(range(10))
    assert parts[-1].aborts == batch.aborts


# --- links ------------------------------------------------------------------------------------------


def test_the_handshake_comes_back() -> None:
    hello = LinkHello("hash", "m", "r", "i", "pod-0", RANKS, HEARTBEAT)
    assert decode_hello(encode_hello(hello), "hash") == hello
    welcome = LinkWelcome("hash", "i", RANKS, 10.0, 77, HEARTBEAT)
    assert decode_welcome(encode_welcome(welcome), "hash") == welcome


def test_version_comes_before_layout_and_layout_before_the_rest() -> None:
    bad = LinkHello("other", "m" * 999, "r", "", "pod-0", (), HEARTBEAT, protocol_version=99)
    with pytest.raises(ProtocolError) as caught:
        decode_hello(encode_hello(bad), "hash")
    assert caught.value.kind == "version"
    bad = LinkHello("other", "m" * 999, "r", "", "pod-0", (), HEARTBEAT)
    with pytest.raises(ProtocolError) as caught:
        decode_hello(encode_hello(bad), "hash")
    assert caught.value.kind == "layout"


def test_what_prefill_says_arrives_as_events_in_order() -> None:
    outputs = (OutputToken(0, 5), OutputToken(1, 6, TokenLogprob(-0.5, (6,), (-0.5,))))
    out = effects.ToDecode(
        commits=[effects.CommitOut(LeaseId(1 << 63), REQUEST, outputs, 2, 1 << 40)],
        writes_closed=[effects.WritesClosedOut(LeaseId(2), 3, write_failed=True)],
        releases=[effects.ReleaseOut(KEY, LeaseId(0), True, False)],
        reserves=[effects.ReserveOut(KEY, 130, 3, b"h" * 64, NOW + 5, True)],
        heartbeat=HEARTBEAT,
    )
    (data,) = encode_to_decode(out, NOW)
    assert read_from_prefill(data, PEER, NOW) == [
        events.CommitAsked(
            peer=PEER,
            lease=LeaseId(1 << 63),
            request=REQUEST,
            outputs=outputs,
            completed_ranks=2,
            transferred_bytes=1 << 40,
        ),
        events.WritesClosed(peer=PEER, lease=LeaseId(2), epoch=3, write_failed=True),
        events.Released(peer=PEER, key=KEY, lease=LeaseId(0), writes_closed=True, aborted=False),
        events.ReserveAsked(
            peer=PEER, key=KEY, tokens=130, blocks=3, block_hashes=b"h" * 64, deadline=NOW + 5, queue=True
        ),
        events.PrefillHeartbeat(peer=PEER, heartbeat=HEARTBEAT),
    ]


def test_what_decode_says_arrives_as_events_in_order() -> None:
    out = effects.ToPrefill(
        grants=[effects.GrantOut(KEY, LeaseId(5), 10.0, 1, (0, 1 << 31))],
        queued=[KEY],
        refusals=[effects.RefuseOut(KEY, RefuseReason.NO_CAPACITY, 0.25, LeaseId(6))],
        committed=[effects.CommittedOut(KEY, LeaseId(7))],
        leases_lost=[effects.LeaseLostOut(LeaseId(8), KEY, "why")],
        credits=effects.CreditsOut(9, 1 << 40, 11, True),
        heartbeat=HEARTBEAT,
    )
    (data,) = encode_to_prefill(out)
    assert read_from_decode(data, PEER) == [
        events.Granted(peer=PEER, key=KEY, lease=LeaseId(5), ttl=10.0, matched_blocks=1, block_ids=(0, 1 << 31)),
        events.QueuedThere(peer=PEER, key=KEY),
        events.Refused(peer=PEER, key=KEY, reason=RefuseReason.NO_CAPACITY, retry_after=0.25, lease=LeaseId(6)),
        events.CommitAccepted(peer=PEER, key=KEY, lease=LeaseId(7)),
        events.LeaseEnded(peer=PEER, lease=LeaseId(8), key=KEY, reason="why"),
        events.CreditsChanged(peer=PEER, sequence=9, blocks=1 << 40, requests=11, draining=True),
        events.DecodeHeartbeat(peer=PEER, heartbeat=HEARTBEAT),
    ]


def test_large_grants_are_split_and_the_heartbeat_stays_last() -> None:
    grants = [effects.GrantOut(KEY, LeaseId(n), 10.0, 0, tuple(range(40_000))) for n in range(12)]
    messages = encode_to_prefill(effects.ToPrefill(grants=grants, heartbeat=HEARTBEAT))
    assert max(map(len, messages)) <= 1.1 * limits.SPLIT_BYTES
    found = [event for data in messages for event in read_from_decode(data, PEER)]
    assert [event.lease for event in found if isinstance(event, events.Granted)] == list(range(12))
    assert isinstance(found[-1], events.DecodeHeartbeat)


def test_an_empty_part_is_no_message() -> None:
    assert encode_to_decode(effects.ToDecode(), NOW) == []
    assert encode_to_prefill(effects.ToPrefill()) == []
    assert encode_worker(WorkerBatch(out=effects.RouterOut())) == []


# --- what does not come in --------------------------------------------------------------------------


def prefill_message(**parts: object) -> bytes:
    return splitwise_pb2.PrefillMessage(**parts).SerializeToString()  # type: ignore[arg-type]


def decode_message(**parts: object) -> bytes:
    return splitwise_pb2.DecodeMessage(**parts).SerializeToString()  # type: ignore[arg-type]


ID = b"i" * 16
TOO_LONG = "x" * (limits.MAX_REASON + 1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff", "garbage"),
        (prefill_message(hello=splitwise_pb2.Hello()), "order"),
        (prefill_message(reserves=[splitwise_pb2.Reserve(request_id=b"short", epoch=1)]), "malformed"),
        (prefill_message(reserves=[splitwise_pb2.Reserve(request_id=ID, epoch=0)]), "malformed"),
        (prefill_message(reserves=[splitwise_pb2.Reserve(request_id=ID, epoch=1, block_hashes=b"x")]), "malformed"),
        (
            prefill_message(
                reserves=[splitwise_pb2.Reserve(request_id=ID, epoch=1, blocks=limits.MAX_REQUEST_BLOCKS + 1)]
            ),
            "limit",
        ),
        (prefill_message(releases=[splitwise_pb2.Release()] * (limits.MAX_ITEMS + 1)), "limit"),
        (
            prefill_message(heartbeat=splitwise_pb2.Heartbeat(lease_ids=[1] * (limits.MAX_LEASES + 1))),
            "limit",
        ),
    ],
)
def test_bad_messages_of_prefill_workers(data: bytes, kind: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_from_prefill(data, PEER, NOW)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff", "garbage"),
        (decode_message(welcome=splitwise_pb2.Welcome()), "order"),
        (decode_message(grants=[splitwise_pb2.Grant(request_id=ID, epoch=1, block_ids=b"odd")]), "malformed"),
        (decode_message(refusals=[splitwise_pb2.Refuse(request_id=ID, epoch=1, reason=77)]), "malformed"),
        (
            decode_message(leases_lost=[splitwise_pb2.LeaseLost(request_id=ID, epoch=1, reason=TOO_LONG)]),
            "limit",
        ),
    ],
)
def test_bad_messages_of_decode_workers(data: bytes, kind: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_from_decode(data, PEER)
    assert caught.value.kind == kind


def test_bad_messages_of_workers_to_routers() -> None:
    uneven = inference_pb2.WorkerMessage()
    uneven.tokens.handles.extend([1, 2])
    uneven.tokens.tokens.append(1)
    unknown = inference_pb2.WorkerMessage(failed=[inference_pb2.Failed(handle=1, code=99)])  # type: ignore[arg-type]
    for message in (uneven, unknown):
        with pytest.raises(ProtocolError):
            decode_worker(message.SerializeToString())


def test_random_bytes_never_raise_anything_else() -> None:
    source = random.Random(5)
    seeds = [
        *encode_router(RouterBatch(submits=(SubmitItem(4, REQUEST),)), NOW),
        *encode_worker(WorkerBatch(out=worker_out())),
    ]
    for _ in range(3000):
        data = bytearray(source.choice(seeds))
        for _ in range(source.randint(1, 6)):
            data[source.randrange(len(data))] = source.randrange(256)
        for decode in (
            lambda raw: decode_router(raw, NOW),
            decode_worker,
            lambda raw: read_from_prefill(raw, PEER, NOW),
            lambda raw: read_from_decode(raw, PEER),
        ):
            try:
                decode(bytes(data))
            except ProtocolError:
                continue
