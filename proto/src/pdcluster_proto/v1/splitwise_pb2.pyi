from pdcluster_proto.v1 import request_pb2 as _request_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RefuseReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REFUSE_REASON_UNSPECIFIED: _ClassVar[RefuseReason]
    REFUSE_REASON_NO_CAPACITY: _ClassVar[RefuseReason]
    REFUSE_REASON_TOO_LARGE: _ClassVar[RefuseReason]
    REFUSE_REASON_DRAINING: _ClassVar[RefuseReason]
    REFUSE_REASON_UNKNOWN_LEASE: _ClassVar[RefuseReason]
    REFUSE_REASON_STALE_EPOCH: _ClassVar[RefuseReason]
    REFUSE_REASON_INVALID: _ClassVar[RefuseReason]
REFUSE_REASON_UNSPECIFIED: RefuseReason
REFUSE_REASON_NO_CAPACITY: RefuseReason
REFUSE_REASON_TOO_LARGE: RefuseReason
REFUSE_REASON_DRAINING: RefuseReason
REFUSE_REASON_UNKNOWN_LEASE: RefuseReason
REFUSE_REASON_STALE_EPOCH: RefuseReason
REFUSE_REASON_INVALID: RefuseReason

class PrefillMessage(_message.Message):
    __slots__ = ("hello", "commits", "writes_closed", "releases", "reserves", "heartbeat")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    WRITES_CLOSED_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    RESERVES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    commits: _containers.RepeatedCompositeFieldContainer[Commit]
    writes_closed: _containers.RepeatedCompositeFieldContainer[WritesClosed]
    releases: _containers.RepeatedCompositeFieldContainer[Release]
    reserves: _containers.RepeatedCompositeFieldContainer[Reserve]
    heartbeat: Heartbeat
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., commits: _Optional[_Iterable[_Union[Commit, _Mapping]]] = ..., writes_closed: _Optional[_Iterable[_Union[WritesClosed, _Mapping]]] = ..., releases: _Optional[_Iterable[_Union[Release, _Mapping]]] = ..., reserves: _Optional[_Iterable[_Union[Reserve, _Mapping]]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class DecodeMessage(_message.Message):
    __slots__ = ("welcome", "grants", "queued", "refusals", "committed", "leases_lost", "credits", "heartbeat")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    GRANTS_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    REFUSALS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    LEASES_LOST_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    grants: _containers.RepeatedCompositeFieldContainer[Grant]
    queued: _containers.RepeatedCompositeFieldContainer[Queued]
    refusals: _containers.RepeatedCompositeFieldContainer[Refuse]
    committed: _containers.RepeatedCompositeFieldContainer[Committed]
    leases_lost: _containers.RepeatedCompositeFieldContainer[LeaseLost]
    credits: Credits
    heartbeat: Heartbeat
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., grants: _Optional[_Iterable[_Union[Grant, _Mapping]]] = ..., queued: _Optional[_Iterable[_Union[Queued, _Mapping]]] = ..., refusals: _Optional[_Iterable[_Union[Refuse, _Mapping]]] = ..., committed: _Optional[_Iterable[_Union[Committed, _Mapping]]] = ..., leases_lost: _Optional[_Iterable[_Union[LeaseLost, _Mapping]]] = ..., credits: _Optional[_Union[Credits, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Region(_message.Message):
    __slots__ = ("address", "length", "device")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    address: int
    length: int
    device: int
    def __init__(self, address: _Optional[int] = ..., length: _Optional[int] = ..., device: _Optional[int] = ...) -> None: ...

class RankMetadata(_message.Message):
    __slots__ = ("rank", "agent_name", "agent_metadata", "regions", "num_blocks", "block_bytes")
    RANK_FIELD_NUMBER: _ClassVar[int]
    AGENT_NAME_FIELD_NUMBER: _ClassVar[int]
    AGENT_METADATA_FIELD_NUMBER: _ClassVar[int]
    REGIONS_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    agent_name: str
    agent_metadata: bytes
    regions: _containers.RepeatedCompositeFieldContainer[Region]
    num_blocks: int
    block_bytes: int
    def __init__(self, rank: _Optional[int] = ..., agent_name: _Optional[str] = ..., agent_metadata: _Optional[bytes] = ..., regions: _Optional[_Iterable[_Union[Region, _Mapping]]] = ..., num_blocks: _Optional[int] = ..., block_bytes: _Optional[int] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "layout_hash", "model", "revision", "instance_id", "ranks", "heartbeat", "name")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    layout_hash: str
    model: str
    revision: str
    instance_id: str
    ranks: _containers.RepeatedCompositeFieldContainer[RankMetadata]
    heartbeat: Heartbeat
    name: str
    def __init__(self, protocol_version: _Optional[int] = ..., layout_hash: _Optional[str] = ..., model: _Optional[str] = ..., revision: _Optional[str] = ..., instance_id: _Optional[str] = ..., ranks: _Optional[_Iterable[_Union[RankMetadata, _Mapping]]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., name: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "layout_hash", "instance_id", "ranks", "lease_ttl_ms", "pool_blocks", "credits", "heartbeat")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    LEASE_TTL_MS_FIELD_NUMBER: _ClassVar[int]
    POOL_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    layout_hash: str
    instance_id: str
    ranks: _containers.RepeatedCompositeFieldContainer[RankMetadata]
    lease_ttl_ms: int
    pool_blocks: int
    credits: Credits
    heartbeat: Heartbeat
    def __init__(self, protocol_version: _Optional[int] = ..., layout_hash: _Optional[str] = ..., instance_id: _Optional[str] = ..., ranks: _Optional[_Iterable[_Union[RankMetadata, _Mapping]]] = ..., lease_ttl_ms: _Optional[int] = ..., pool_blocks: _Optional[int] = ..., credits: _Optional[_Union[Credits, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("request_id", "epoch", "tokens", "blocks", "block_hashes", "deadline_ms", "queue")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HASHES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    tokens: int
    blocks: int
    block_hashes: bytes
    deadline_ms: int
    queue: bool
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., tokens: _Optional[int] = ..., blocks: _Optional[int] = ..., block_hashes: _Optional[bytes] = ..., deadline_ms: _Optional[int] = ..., queue: bool = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("request_id", "epoch", "lease_id", "ttl_ms", "matched_blocks", "block_ids")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    MATCHED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_IDS_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    lease_id: int
    ttl_ms: int
    matched_blocks: int
    block_ids: bytes
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., lease_id: _Optional[int] = ..., ttl_ms: _Optional[int] = ..., matched_blocks: _Optional[int] = ..., block_ids: _Optional[bytes] = ...) -> None: ...

class Queued(_message.Message):
    __slots__ = ("request_id", "epoch")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ...) -> None: ...

class Refuse(_message.Message):
    __slots__ = ("request_id", "epoch", "reason", "retry_after_ms", "lease_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    reason: RefuseReason
    retry_after_ms: int
    lease_id: int
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., reason: _Optional[_Union[RefuseReason, str]] = ..., retry_after_ms: _Optional[int] = ..., lease_id: _Optional[int] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("lease_id", "request", "outputs", "completed_ranks", "transferred_bytes")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    COMPLETED_RANKS_FIELD_NUMBER: _ClassVar[int]
    TRANSFERRED_BYTES_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    request: _request_pb2.Request
    outputs: _containers.RepeatedCompositeFieldContainer[_request_pb2.OutputToken]
    completed_ranks: int
    transferred_bytes: int
    def __init__(self, lease_id: _Optional[int] = ..., request: _Optional[_Union[_request_pb2.Request, _Mapping]] = ..., outputs: _Optional[_Iterable[_Union[_request_pb2.OutputToken, _Mapping]]] = ..., completed_ranks: _Optional[int] = ..., transferred_bytes: _Optional[int] = ...) -> None: ...

class Committed(_message.Message):
    __slots__ = ("request_id", "epoch", "lease_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    lease_id: int
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., lease_id: _Optional[int] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("request_id", "epoch", "lease_id", "writes_closed", "aborted", "write_failed")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    WRITES_CLOSED_FIELD_NUMBER: _ClassVar[int]
    ABORTED_FIELD_NUMBER: _ClassVar[int]
    WRITE_FAILED_FIELD_NUMBER: _ClassVar[int]
    request_id: bytes
    epoch: int
    lease_id: int
    writes_closed: bool
    aborted: bool
    write_failed: bool
    def __init__(self, request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., lease_id: _Optional[int] = ..., writes_closed: bool = ..., aborted: bool = ..., write_failed: bool = ...) -> None: ...

class WritesClosed(_message.Message):
    __slots__ = ("lease_id", "epoch", "write_failed")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    WRITE_FAILED_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    epoch: int
    write_failed: bool
    def __init__(self, lease_id: _Optional[int] = ..., epoch: _Optional[int] = ..., write_failed: bool = ...) -> None: ...

class LeaseLost(_message.Message):
    __slots__ = ("lease_id", "request_id", "epoch", "reason")
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    lease_id: int
    request_id: bytes
    epoch: int
    reason: str
    def __init__(self, lease_id: _Optional[int] = ..., request_id: _Optional[bytes] = ..., epoch: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Credits(_message.Message):
    __slots__ = ("sequence", "blocks", "requests", "draining")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    blocks: int
    requests: int
    draining: bool
    def __init__(self, sequence: _Optional[int] = ..., blocks: _Optional[int] = ..., requests: _Optional[int] = ..., draining: bool = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("lease_count", "lease_xor", "full", "lease_ids", "demand_blocks", "demand_requests", "reserved_blocks", "reserved_requests")
    LEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    LEASE_XOR_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    LEASE_IDS_FIELD_NUMBER: _ClassVar[int]
    DEMAND_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    DEMAND_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    RESERVED_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    lease_count: int
    lease_xor: int
    full: bool
    lease_ids: _containers.RepeatedScalarFieldContainer[int]
    demand_blocks: int
    demand_requests: int
    reserved_blocks: int
    reserved_requests: int
    def __init__(self, lease_count: _Optional[int] = ..., lease_xor: _Optional[int] = ..., full: bool = ..., lease_ids: _Optional[_Iterable[int]] = ..., demand_blocks: _Optional[int] = ..., demand_requests: _Optional[int] = ..., reserved_blocks: _Optional[int] = ..., reserved_requests: _Optional[int] = ...) -> None: ...
