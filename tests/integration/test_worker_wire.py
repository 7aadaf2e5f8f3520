"""Peers that break the rules of the wire: told why, disconnected, counted; nobody else notices."""

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator

import grpc
import grpc.aio
import pytest
from worker_client import WorkerClient
from worker_processes import WorkerProcess, running_workers

from pdcluster_proto.v1 import inference_pb2, splitwise_pb2
from pdcluster_worker.core.ids import RequestId
from pdcluster_worker.core.request import Request, SamplingParams
from pdcluster_worker.core.wire import Heartbeat, RankMetadata
from pdcluster_worker.splitwise import limits
from pdcluster_worker.splitwise.channel import INFERENCE_STREAM, SPLITWISE_LINK, open_channel
from pdcluster_worker.splitwise.handshake_codec import decode_welcome, encode_hello
from pdcluster_worker.splitwise.inference_codec import encode_router
from pdcluster_worker.splitwise.inference_messages import RouterBatch, RouterHello, SubmitItem
from pdcluster_worker.splitwise.link_messages import LinkHello

OPTIONS: dict[str, object] = {"runner": "Simulated", "block_size": 16, "kv_blocks": 512, "threads": 1}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    with running_workers("prefill", "decode", **OPTIONS) as (prefill, decode):
        yield prefill, decode


async def answer(address: str, method: str, *messages: bytes) -> tuple[grpc.StatusCode, str, list[bytes]]:
    """Sends the messages; how the other side ended the call, and what it said before."""
    async with open_channel(address, "any", None) as channel:
        call = channel.stream_stream(method)()
        for message in messages:
            await call.write(message)
        heard: list[bytes] = []
        try:
            async with asyncio.timeout(20):
                while isinstance(data := await call.read(), bytes):
                    heard.append(data)
            return await call.code(), await call.details(), heard
        except grpc.aio.AioRpcError as error:
            return error.code(), str(error.details()), heard


def router_hello(**changes: object) -> bytes:
    fields: dict[str, object] = {"protocol_version": limits.PROTOCOL_VERSION, "router_id": "r", **changes}
    return inference_pb2.RouterMessage(hello=inference_pb2.RouterHello(**fields)).SerializeToString()


def submit(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "request_id": uuid.uuid4().bytes,
        "epoch": 1,
        "tokens": (5).to_bytes(4, "little"),
        "prompt_length": 1,
        "deadline_ms": 10_000,
        **changes,
    }
    request = inference_pb2.Submit(handle=1)
    for name, value in fields.items():
        setattr(request.request, name, value)
    return inference_pb2.RouterMessage(submits=[request]).SerializeToString()


TOO_MANY_PEERS = inference_pb2.RouterMessage(
    peers=inference_pb2.Peers(peers=[inference_pb2.Peer(role=2)] * (limits.MAX_PEERS + 1))
).SerializeToString()

ROUTER_FAULTS: list[tuple[str, list[Callable[[], bytes]], grpc.StatusCode, str]] = [
    ("garbage", [lambda: b"\xff\xfe\xfd"], grpc.StatusCode.INVALID_ARGUMENT, "RouterMessage"),
    ("garbage", [router_hello, lambda: b"\xff" * 100], grpc.StatusCode.INVALID_ARGUMENT, "RouterMessage"),
    ("version", [lambda: router_hello(protocol_version=99)], grpc.StatusCode.FAILED_PRECONDITION, "99"),
    ("model", [lambda: router_hello(model="other")], grpc.StatusCode.FAILED_PRECONDITION, "other"),
    ("order", [submit], grpc.StatusCode.INVALID_ARGUMENT, "hello"),
    ("order", [router_hello, router_hello], grpc.StatusCode.INVALID_ARGUMENT, "hello"),
    ("limit", [lambda: router_hello(router_id="x" * 300)], grpc.StatusCode.INVALID_ARGUMENT, "router_id"),
    ("limit", [router_hello, lambda: TOO_MANY_PEERS], grpc.StatusCode.INVALID_ARGUMENT, "peers"),
    ("limit", [router_hello, lambda: submit(cache_salt="x" * 2000)], grpc.StatusCode.INVALID_ARGUMENT, "cache_salt"),
    ("malformed", [router_hello, lambda: submit(request_id=b"short")], grpc.StatusCode.INVALID_ARGUMENT, "request_id"),
    ("malformed", [router_hello, lambda: submit(tokens=b"123")], grpc.StatusCode.INVALID_ARGUMENT, "tokens"),
    ("malformed", [router_hello, lambda: submit(epoch=0)], grpc.StatusCode.INVALID_ARGUMENT, "epoch"),
]


@pytest.mark.parametrize(("kind", "messages", "status", "named"), ROUTER_FAULTS)
def test_a_router_that_breaks_the_rules(
    pair: tuple[WorkerProcess, WorkerProcess],
    kind: str,
    messages: list[Callable[[], bytes]],
    status: grpc.StatusCode,
    named: str,
) -> None:
    prefill, _ = pair
    before = prefill.metric("pdc_protocol_errors_total", peer_kind="router", reason=kind)
    code, reason, _heard = asyncio.run(answer(prefill.address, INFERENCE_STREAM, *(message() for message in messages)))
    assert code is status
    assert named in reason
    assert prefill.metric("pdc_protocol_errors_total", peer_kind="router", reason=kind) == before + 1


def link_hello(layout: str, **changes: object) -> LinkHello:
    ranks = (RankMetadata(0, "stranger/0", b"", (), 1, 1),)
    hello = LinkHello(layout, "test", "", f"stranger.{uuid.uuid4().hex}", "stranger", ranks, Heartbeat(full=True))
    fields = {name: getattr(hello, name) for name in LinkHello.__struct_fields__}
    return LinkHello(**{**fields, **changes})


async def layout_of(address: str) -> str:
    async with WorkerClient([address]) as client:
        (stream,) = client.streams.values()
        assert stream.hello is not None
        return stream.hello.layout_hash


LINK_FAULTS: list[tuple[str, dict[str, object], grpc.StatusCode]] = [
    ("version", {"protocol_version": 2}, grpc.StatusCode.FAILED_PRECONDITION),
    ("layout", {"layout_hash": "another"}, grpc.StatusCode.FAILED_PRECONDITION),
    ("model", {"model": "another"}, grpc.StatusCode.FAILED_PRECONDITION),
    ("revision", {"revision": "another"}, grpc.StatusCode.FAILED_PRECONDITION),
    ("malformed", {"instance_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
    ("malformed", {"ranks": ()}, grpc.StatusCode.INVALID_ARGUMENT),
    ("limit", {"instance_id": "x" * 300}, grpc.StatusCode.INVALID_ARGUMENT),
]


@pytest.mark.parametrize(("kind", "changes", "status"), LINK_FAULTS)
def test_a_prefill_worker_that_does_not_fit(
    pair: tuple[WorkerProcess, WorkerProcess], kind: str, changes: dict[str, object], status: grpc.StatusCode
) -> None:
    _, decode = pair
    before = decode.metric("pdc_protocol_errors_total", peer_kind="prefill", reason=kind)
    hello = link_hello(asyncio.run(layout_of(decode.address)), **changes)
    code, _reason, heard = asyncio.run(answer(decode.address, SPLITWISE_LINK, encode_hello(hello)))
    assert code is status
    assert not heard, "no Welcome"
    assert decode.metric("pdc_protocol_errors_total", peer_kind="prefill", reason=kind) == before + 1


def test_garbage_on_a_link_ends_it(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    _, decode = pair
    layout = asyncio.run(layout_of(decode.address))
    hello = encode_hello(link_hello(layout))
    bad_reserve = splitwise_pb2.PrefillMessage(
        reserves=[splitwise_pb2.Reserve(request_id=b"x" * 16, epoch=1, block_hashes=b"odd")]
    ).SerializeToString()
    for second, named in ((b"\xff\xff", "PrefillMessage"), (bad_reserve, "block_hashes"), (hello, "hello")):
        code, reason, heard = asyncio.run(answer(decode.address, SPLITWISE_LINK, hello, second))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert named in reason
        assert decode_welcome(heard[0], layout).instance_id == decode.instance_id
    decode.check_nothing_held()


def test_a_silent_link_ends(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    _, decode = pair
    hello = encode_hello(link_hello(asyncio.run(layout_of(decode.address))))
    code, _reason, heard = asyncio.run(answer(decode.address, SPLITWISE_LINK, hello))
    assert code is grpc.StatusCode.OK
    assert heard, "Welcome, then heartbeats until patience ran out"


def test_roles_without_links_say_so(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    prefill, _ = pair
    hello = encode_hello(link_hello(asyncio.run(layout_of(prefill.address))))
    code, _reason, _heard = asyncio.run(answer(prefill.address, SPLITWISE_LINK, hello))
    assert code is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_over_the_size_is_refused(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    prefill, _ = pair
    code, _reason, _heard = asyncio.run(answer(prefill.address, INFERENCE_STREAM, router_hello(), b"\x00" * (9 << 20)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_decode_worker_takes_no_submits(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    _, decode = pair

    async def main() -> str:
        async with WorkerClient([decode.address]) as client:
            (stream,) = client.streams.values()
            generation = await client.start([1, 2, 3], at=stream)
            await asyncio.wait_for(generation.done.wait(), 20)
            assert generation.failed is not None
            return generation.failed.reason

    assert "only decodes" in asyncio.run(main())


BAD_REQUESTS: list[tuple[dict[str, object], str]] = [
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 0.0}, "top_p"),
    ({"min_p": 1.5}, "min_p"),
    ({"top_k": -1}, "top_k"),
    ({"presence_penalty": 3.0}, "presence_penalty"),
    ({"logprobs": 21}, "logprobs"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 1_000_000}, "max_tokens"),
    ({"min_tokens": 9}, "min_tokens"),
    ({"stop_token_ids": (1_000_000,)}, "stop_token_ids"),
    ({"logit_bias_ids": (1_000_000,), "logit_bias_values": (1.0,)}, "logit_bias"),
]


def test_bad_requests_name_field_and_leave_nothing(pair: tuple[WorkerProcess, WorkerProcess]) -> None:
    prefill, decode = pair

    async def main() -> None:
        async with WorkerClient([prefill.address, decode.address]) as client:
            good = await client.start(list(range(30)), max_tokens=40, ignore_eos=True)
            for sampling, field in BAD_REQUESTS:
                generation = await client.generate([1, 2, 3], **sampling)
                assert generation.failed is not None, sampling
                assert field in generation.failed.reason
            for prompt in ([], [512], list(range(500)) * 20):
                generation = await client.generate(prompt)
                assert generation.failed is not None
                assert "prompt" in generation.failed.reason
            await asyncio.wait_for(good.done.wait(), 20)
            assert len(good.tokens) == 40

    asyncio.run(main())
    prefill.check_nothing_held()
    decode.check_nothing_held()


def test_a_router_that_does_not_read_is_cut_off_and_disturbs_nobody(
    pair: tuple[WorkerProcess, WorkerProcess],
) -> None:
    """Thousands of answers wait for it; another router's request runs as if it were not there."""
    prefill, decode = pair

    async def main() -> None:
        async with (
            open_channel(prefill.address, "prefill", None) as channel,
            WorkerClient([prefill.address, decode.address]) as client,
        ):
            call = channel.stream_stream(INFERENCE_STREAM)()
            for message in encode_router(RouterBatch(hello=RouterHello("deaf")), 0.0):
                await call.write(message)
            reason = "x" * 10
            bad = [SubmitItem(n, invalid_request(reason)) for n in range(1, 2000)]
            for message in encode_router(RouterBatch(submits=tuple(bad)), time.monotonic()):
                await call.write(message)
            generation = await client.generate(list(range(30)), max_tokens=20, ignore_eos=True)
            assert len(generation.tokens) == 20
            call.cancel()

    asyncio.run(main())
    prefill.check_nothing_held()
    decode.check_nothing_held()


def invalid_request(salt: str) -> Request:
    return Request(
        request_id=RequestId(uuid.uuid4().bytes),
        epoch=1,
        tokens=(1_000_000).to_bytes(4, "little"),
        prompt_length=1,
        sampling=SamplingParams(),
        deadline=time.monotonic() + 60,
        cache_salt=salt,
    )
