from pdcluster_proto.v1 import request_pb2 as _request_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DrainRequest(_message.Message):
    __slots__ = ("deadline_ms",)
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class DrainProgress(_message.Message):
    __slots__ = ("requests", "leases", "drained")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    requests: int
    leases: int
    drained: bool
    def __init__(self, requests: _Optional[int] = ..., leases: _Optional[int] = ..., drained: bool = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("instance_id", "name", "role", "revision", "layout_hash", "model", "draining", "requests", "leases", "blocks", "kv_peers")
    class BlocksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_HASH_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LEASES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    KV_PEERS_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    name: str
    role: _request_pb2.Role
    revision: str
    layout_hash: str
    model: str
    draining: bool
    requests: int
    leases: int
    blocks: _containers.ScalarMap[str, int]
    kv_peers: int
    def __init__(self, instance_id: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[_Union[_request_pb2.Role, str]] = ..., revision: _Optional[str] = ..., layout_hash: _Optional[str] = ..., model: _Optional[str] = ..., draining: bool = ..., requests: _Optional[int] = ..., leases: _Optional[int] = ..., blocks: _Optional[_Mapping[str, int]] = ..., kv_peers: _Optional[int] = ...) -> None: ...
