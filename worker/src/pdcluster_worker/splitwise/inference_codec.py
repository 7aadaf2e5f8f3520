"""Inference.Stream to and from bytes: for the router (which imports this) and for the worker's service.

`encode_*` return one or more messages, each about 1 MiB at most. `decode_*` raise ProtocolError.
"""

from collections.abc import Sequence

from pdcluster_proto.v1 import inference_pb2 as pb
from pdcluster_proto.v1 import request_pb2
from pdcluster_worker.core.wire import Role
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise import checks, limits
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
from pdcluster_worker.splitwise.request_codec import read_request, write_request
from pdcluster_worker.splitwise.router_out_codec import add_router_out, read_router_out
from pdcluster_worker.splitwise.splitter import Splitter

ROLE_TO_WIRE: dict[Role, request_pb2.Role] = {
    Role.PREFILL: request_pb2.ROLE_PREFILL,
    Role.DECODE: request_pb2.ROLE_DECODE,
    Role.MIXED: request_pb2.ROLE_MIXED,
}
ROLE_FROM_WIRE: dict[int, Role] = {int(value): role for role, value in ROLE_TO_WIRE.items()}

SUBMIT_OVERHEAD = 400
"""Bytes of a request besides its tokens, biases and stop tokens; an estimate for splitting."""


def encode_router(batch: RouterBatch, now: float) -> list[bytes]:
    """`now` on the clock of the requests' deadlines."""
    messages = [_router_hello(batch.hello)] if batch.hello is not None else []
    splitter = Splitter(pb.RouterMessage)
    if batch.peers is not None:
        _write_peers(batch.peers, splitter.room(limits.MAX_NAME * len(batch.peers)))
    for submit in batch.submits:
        sampling = submit.request.sampling
        extra = 8 * len(sampling.logit_bias_ids) + 5 * len(sampling.stop_token_ids)
        message = splitter.room(len(submit.request.tokens) + extra + SUBMIT_OVERHEAD)
        item = message.submits.add(handle=submit.handle)
        write_request(submit.request, item.request, now)
    for attach in batch.attaches:
        splitter.room(48).attaches.add(
            handle=attach.handle,
            request_id=attach.key.request_id,
            epoch=attach.key.epoch,
            next_index=attach.next_index,
            prefill_lost=attach.prefill_lost,
        )
    for abort in batch.aborts:
        request_id, epoch = abort.key if abort.key is not None else (b"", 0)
        splitter.room(32).aborts.add(request_id=request_id, epoch=epoch, handle=abort.handle)
    for pod in batch.gone_pods:
        splitter.room(limits.MAX_NAME).gone_pods.append(pod)
    return messages + splitter.finish()


def decode_router(data: bytes, now: float) -> RouterBatch:
    message = checks.parse(pb.RouterMessage, data)
    if message.HasField("hello"):
        return RouterBatch(hello=_read_router_hello(message.hello))
    return RouterBatch(
        peers=_read_peers(message.peers.peers) if message.HasField("peers") else None,
        submits=tuple(
            SubmitItem(item.handle, read_request(item.request, now))
            for item in checks.bounded(message.submits, limits.MAX_ITEMS, "submits")
        ),
        attaches=tuple(
            AttachItem(item.handle, checks.key(item.request_id, item.epoch), item.next_index, item.prefill_lost)
            for item in checks.bounded(message.attaches, limits.MAX_ITEMS, "attaches")
        ),
        aborts=tuple(
            AbortItem(checks.key(item.request_id, item.epoch) if item.request_id else None, item.handle)
            for item in checks.bounded(message.aborts, limits.MAX_ITEMS, "aborts")
        ),
        gone_pods=tuple(
            checks.bounded(name, limits.MAX_NAME, "gone_pods")
            for name in checks.bounded(message.gone_pods, limits.MAX_PEERS, "gone_pods")
        ),
    )


def encode_worker(batch: WorkerBatch) -> list[bytes]:
    messages = [_worker_hello(batch.hello)] if batch.hello is not None else []
    splitter = Splitter(pb.WorkerMessage)
    if batch.out is not None:
        add_router_out(batch.out, splitter)
    if batch.state is not None:
        _write_state(batch.state, splitter.room(64).state)
    return messages + splitter.finish()


def decode_worker(data: bytes) -> WorkerBatch:
    message = checks.parse(pb.WorkerMessage, data)
    if message.HasField("hello"):
        return WorkerBatch(hello=_read_worker_hello(message.hello))
    return WorkerBatch(
        out=read_router_out(message),
        state=_read_state(message.state) if message.HasField("state") else None,
    )


def read_role(value: int, field: str) -> Role:
    role = ROLE_FROM_WIRE.get(value)
    if role is None:
        raise ProtocolError(f"{field}: {value} is no role", "malformed")
    return role


def _router_hello(hello: RouterHello) -> bytes:
    message = pb.RouterMessage()
    message.hello.protocol_version = hello.protocol_version
    message.hello.router_id = hello.router_id
    message.hello.model = hello.model
    return message.SerializeToString()


def _read_router_hello(message: pb.RouterHello) -> RouterHello:
    _check_version(message.protocol_version)
    return RouterHello(
        router_id=checks.bounded(message.router_id, limits.MAX_NAME, "router_id"),
        model=checks.bounded(message.model, limits.MAX_NAME, "model"),
        protocol_version=message.protocol_version,
    )


def _check_version(version: int) -> None:
    if version != limits.PROTOCOL_VERSION:
        raise ProtocolError(f"protocol version {version}; this side speaks {limits.PROTOCOL_VERSION}", "version")


def _write_peers(peers: Sequence[PeerRecord], message: pb.RouterMessage) -> None:
    message.peers.SetInParent()
    for peer in peers:
        message.peers.peers.add(
            instance_id=peer.instance_id,
            address=peer.address,
            role=ROLE_TO_WIRE[peer.role],
            revision=peer.revision,
            layout_hash=peer.layout_hash,
        )


def _read_peers(items: Sequence[pb.Peer]) -> tuple[PeerRecord, ...]:
    return tuple(
        PeerRecord(
            instance_id=checks.bounded(item.instance_id, limits.MAX_NAME, "peers.instance_id"),
            address=checks.bounded(item.address, limits.MAX_NAME, "peers.address"),
            role=read_role(item.role, "peers.role"),
            revision=checks.bounded(item.revision, limits.MAX_NAME, "peers.revision"),
            layout_hash=checks.bounded(item.layout_hash, limits.MAX_NAME, "peers.layout_hash"),
        )
        for item in checks.bounded(items, limits.MAX_PEERS, "peers")
    )


def _worker_hello(hello: WorkerHello) -> bytes:
    message = pb.WorkerMessage()
    message.hello.protocol_version = hello.protocol_version
    message.hello.instance_id = hello.instance_id
    message.hello.name = hello.name
    message.hello.role = ROLE_TO_WIRE[hello.role]
    message.hello.revision = hello.revision
    message.hello.layout_hash = hello.layout_hash
    message.hello.model = hello.model
    message.hello.max_model_length = hello.max_model_length
    message.hello.vocab_size = hello.vocab_size
    message.hello.block_size = hello.block_size
    message.hello.pool_tokens = min(hello.pool_tokens, (1 << 32) - 1)
    return message.SerializeToString()


def _read_worker_hello(message: pb.WorkerHello) -> WorkerHello:
    _check_version(message.protocol_version)
    return WorkerHello(
        instance_id=checks.bounded(message.instance_id, limits.MAX_NAME, "instance_id"),
        name=checks.bounded(message.name, limits.MAX_NAME, "name"),
        role=read_role(message.role, "role"),
        revision=checks.bounded(message.revision, limits.MAX_NAME, "revision"),
        layout_hash=checks.bounded(message.layout_hash, limits.MAX_NAME, "layout_hash"),
        model=checks.bounded(message.model, limits.MAX_NAME, "model"),
        max_model_length=message.max_model_length,
        vocab_size=message.vocab_size,
        block_size=message.block_size,
        pool_tokens=message.pool_tokens,
        protocol_version=message.protocol_version,
    )


def _write_state(state: WorkerState, message: pb.WorkerState) -> None:
    message.queued_tokens = state.queued_tokens
    message.prefill_tokens_per_second = state.prefill_tokens_per_second
    message.kv_usage = state.kv_usage
    message.running = state.running
    message.waiting = state.waiting
    message.free_slots = state.free_slots
    message.draining = state.draining
    message.kv_peers = state.kv_peers
    message.ready = state.ready


def _read_state(message: pb.WorkerState) -> WorkerState:
    return WorkerState(
        queued_tokens=message.queued_tokens,
        prefill_tokens_per_second=message.prefill_tokens_per_second,
        kv_usage=message.kv_usage,
        running=message.running,
        waiting=message.waiting,
        free_slots=message.free_slots,
        draining=message.draining,
        kv_peers=message.kv_peers,
        ready=message.ready,
    )
