from pdcluster_proto.v1 import request_pb2 as _request_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RouterMessage(_message.Message):
    __slots__ = ("hello", "peers", "submits", "attaches", "aborts", "gone_pods")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    SUBMITS_FIELD_NUMBER: _ClassVar[int]
    ATTACHES_FIELD_NUMBER: _ClassVar[int]
    ABORTS_FIELD_NUMBER: _ClassVar[int]
    GONE_PODS_FIELD_NUMBER: _ClassVar[int]
    hello: RouterHello
    peers: Peers
    submits: _containers.RepeatedCompositeFieldContainer[Submit]
    attaches: _containers.RepeatedCompositeFieldContainer[Attach]
    aborts: _containers.RepeatedCompositeFieldContainer[Abort]
    gone_pods: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, hello: _Optional[_Union[RouterHello, _Mapping]] = ..., peers: _Optional[_Union[Peers, _Mapping]] = ..., submits: _Optional[_Iterable[_Union[Submit, _Mapping]]] = ..., attaches: _Optional[_Iterable[_Union[Attach, _Mapping]]] = ..., aborts: _Optional[_Iterable[_Union[Abort, _Mapping]]] = ..., gone_pods: _Optional[_Iterable[str]] = ...) -> None: ...

class RouterHello(_message.Message):
    __slots__ = ("protocol_version", "router_id", "model")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    ROUTER_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    router_id: str
    model: str
    def __init__(self, protocol_version: _Optional[int] = ..., router_id: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class Peers(_message.Message):
    __slots__ = ("peers",)
    PEERS_FIELD_NUMBER: _ClassVar[int]
    peers: _containers.RepeatedCompositeFieldContainer[Peer]
    def __init__(self, peers: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("instance_id", "address", "role", "revision", "layout_hash")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    address: str
    role: _request_pb2.Role
    revision: str
    layout_hash: str
    def __init__(self, instance_id: _Optional[str] = ..., address: _Optional[str] = ..., role: _Optional[_Union[_request_pb2.Role, str]] = ..., revision: _Optional[str] = ..., layout_hash: _Optional[str] = ...) -> None: ...

class Submit(_message.Message):
    __slots__ = ("handle", "request")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    handle: int
    request: _request_pb2.Request
    def __init__(self, handle: _Optional[int] = ..., request: _Optional[_Union[_request_pb2.Request, _Mapping]] = ...) -> None: ...

class Attach(_message.Message):
    __slots__ = ("handle", "request_id", "epoch", "next_index", "prefill_lost")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NEXT_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREFILL_LOST_FIELD_NUMBER: _ClassVar[int]
    handle: int
    request_id: bytes
    epoch: int
    next_index: int
    prefill_lost: bool
    def __init__(self, handle: _Optional[int] = ..., request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., next_index: _Optional[int] = ..., prefill_lost: bool = ...) -> None: ...

class Abort(_message.Message):
    __slots__ = ("request_id", "epoch", "handle")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    handle: int
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., handle: _Optional[int] = ...) -> None: ...

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "accepted", "reserved", "tokens", "handed_off", "finished", "failed", "state")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    HANDED_OFF_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    hello: WorkerHello
    accepted: _containers.RepeatedCompositeFieldContainer[Accepted]
    reserved: _containers.RepeatedCompositeFieldContainer[Reserved]
    tokens: _request_pb2.TokenBatch
    handed_off: _containers.RepeatedCompositeFieldContainer[HandedOff]
    finished: _containers.RepeatedCompositeFieldContainer[Finished]
    failed: _containers.RepeatedCompositeFieldContainer[Failed]
    state: WorkerState
    def __init__(self, hello: _Optional[_Union[WorkerHello, _Mapping]] = ..., accepted: _Optional[_Iterable[_Union[Accepted, _Mapping]]] = ..., reserved: _Optional[_Iterable[_Union[Reserved, _Mapping]]] = ..., tokens: _Optional[_Union[_request_pb2.TokenBatch, _Mapping]] = ..., handed_off: _Optional[_Iterable[_Union[HandedOff, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[Finished, _Mapping]]] = ..., failed: _Optional[_Iterable[_Union[Failed, _Mapping]]] = ..., state: _Optional[_Union[WorkerState, _Mapping]] = ...) -> None: ...

class WorkerHello(_message.Message):
    __slots__ = ("protocol_version", "instance_id", "name", "role", "revision", "layout_hash", "model", "max_model_length", "vocab_size", "block_size", "pool_tokens")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LENGTH_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    POOL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    instance_id: str
    name: str
    role: _request_pb2.Role
    revision: str
    layout_hash: str
    model: str
    max_model_length: int
    vocab_size: int
    block_size: int
    pool_tokens: int
    def __init__(self, protocol_version: _Optional[int] = ..., instance_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[_Union[_request_pb2.Role, str]] = ..., revision: _Optional[str] = ..., layout_hash: _Optional[str] = ..., model: _Optional[str] = ..., max_model_length: _Optional[int] = ..., vocab_size: _Optional[int] = ..., block_size: _Optional[int] = ..., pool_tokens: _Optional[int] = ...) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("handle",)
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    handle: int
    def __init__(self, handle: _Optional[int] = ...) -> None: ...

class Reserved(_message.Message):
    __slots__ = ("handle", "decode_instance_id", "reserve_seconds")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    DECODE_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    RESERVE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    handle: int
    decode_instance_id: str
    reserve_seconds: float
    def __init__(self, handle: _Optional[int] = ..., decode_instance_id: _Optional[str] = ..., reserve_seconds: _Optional[float] = ...) -> None: ...

class HandedOff(_message.Message):
    __slots__ = ("handle", "decode_instance_id", "stages")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    DECODE_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    handle: int
    decode_instance_id: str
    stages: Stages
    def __init__(self, handle: _Optional[int] = ..., decode_instance_id: _Optional[str] = ..., stages: _Optional[_Union[Stages, _Mapping]] = ...) -> None: ...

class Stages(_message.Message):
    __slots__ = ("queue", "prepare", "reserve", "prefill", "transfer", "cached_tokens", "decode", "transferred_bytes")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    PREPARE_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    PREFILL_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    TRANSFERRED_BYTES_FIELD_NUMBER: _ClassVar[int]
    queue: float
    prepare: float
    reserve: float
    prefill: float
    transfer: float
    cached_tokens: int
    decode: float
    transferred_bytes: int
    def __init__(self, queue: _Optional[float] = ..., prepare: _Optional[float] = ..., reserve: _Optional[float] = ..., prefill: _Optional[float] = ..., transfer: _Optional[float] = ..., cached_tokens: _Optional[int] = ..., decode: _Optional[float] = ..., transferred_bytes: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("handle", "reason", "output_tokens", "stop_token", "stopped_by_token", "stages")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STOP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STOPPED_BY_TOKEN_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    handle: int
    reason: str
    output_tokens: int
    stop_token: int
    stopped_by_token: bool
    stages: Stages
    def __init__(self, handle: _Optional[int] = ..., reason: _Optional[str] = ..., output_tokens: _Optional[int] = ..., stop_token: _Optional[int] = ..., stopped_by_token: bool = ..., stages: _Optional[_Union[Stages, _Mapping]] = ...) -> None: ...

class Failed(_message.Message):
    __slots__ = ("handle", "code", "reason", "retry_after", "was_running")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    WAS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    handle: int
    code: _request_pb2.FailureCode
    reason: str
    retry_after: float
    was_running: bool
    def __init__(self, handle: _Optional[int] = ..., code: _Optional[_Union[_request_pb2.FailureCode, str]] = ..., reason: _Optional[str] = ..., retry_after: _Optional[float] = ..., was_running: bool = ...) -> None: ...

class WorkerState(_message.Message):
    __slots__ = ("queued_tokens", "prefill_tokens_per_second", "kv_usage", "running", "waiting", "free_slots", "draining", "kv_peers", "ready")
    QUEUED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    KV_USAGE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    FREE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    KV_PEERS_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    queued_tokens: int
    prefill_tokens_per_second: float
    kv_usage: float
    running: int
    waiting: int
    free_slots: int
    draining: bool
    kv_peers: int
    ready: bool
    def __init__(self, queued_tokens: _Optional[int] = ..., prefill_tokens_per_second: _Optional[float] = ..., kv_usage: _Optional[float] = ..., running: _Optional[int] = ..., waiting: _Optional[int] = ..., free_slots: _Optional[int] = ..., draining: bool = ..., kv_peers: _Optional[int] = ..., ready: bool = ...) -> None: ...
