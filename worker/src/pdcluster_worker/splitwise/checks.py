"""Checks of what came over the wire. Each raises ProtocolError naming the field; none changes anything."""

from collections.abc import Sized
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from pdcluster_worker.core.ids import RequestId, RequestKey
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise import limits

M = TypeVar("M", bound=Message)
S = TypeVar("S", bound=Sized)


def parse(kind: type[M], data: bytes) -> M:
    """Bytes that are no such message are the peer's fault."""
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a {kind.__name__}: {error}", "garbage") from error
    return message


def bounded(value: S, most: int, field: str) -> S:
    """A string, bytes or repeated field of at most `most` characters, bytes or entries."""
    if len(value) > most:
        raise ProtocolError(f"{field}: {len(value)} long, the limit is {most}", "limit")
    return value


def at_most(value: int, most: int, field: str) -> int:
    if value > most:
        raise ProtocolError(f"{field}: {value}, the limit is {most}", "limit")
    return value


def packed_words(value: bytes, most: int, field: str) -> bytes:
    """Little-endian uint32s, at most `most` of them."""
    if len(value) % 4:
        raise ProtocolError(f"{field}: {len(value)} bytes are no whole number of uint32", "malformed")
    bounded(value, 4 * most, field)
    return value


def key(request_id: bytes, epoch: int) -> RequestKey:
    if len(request_id) != limits.REQUEST_ID_BYTES:
        raise ProtocolError(f"request_id: {len(request_id)} bytes instead of {limits.REQUEST_ID_BYTES}", "malformed")
    if epoch < 1:
        raise ProtocolError("epoch: must be at least 1", "malformed")
    return RequestKey(RequestId(request_id), epoch)


def same_length(field: str, *columns: Sized) -> None:
    if len({len(column) for column in columns}) > 1:
        raise ProtocolError(f"{field}: columns of unequal length", "malformed")


def first_alone(has_first: bool, first_expected: bool, field: str) -> None:
    """The handshake is the first message of a stream and comes once."""
    if has_first != first_expected:
        where = "missing from the first message" if first_expected else "sent a second time"
        raise ProtocolError(f"{field}: {where}", "order")
