"""Splits a batch into messages of bounded size, keeping the order of its parts."""

from typing import Generic, TypeVar

from google.protobuf.message import Message

from pdcluster_worker.splitwise.limits import MAX_ITEMS, SPLIT_BYTES

M = TypeVar("M", bound=Message)

OVERHEAD = 8
"""Bytes of tag and length of a part, at most."""


class Splitter(Generic[M]):
    """Room for the next part is asked for with `room`; the message returned is the one to add it to."""

    def __init__(self, kind: type[M]) -> None:
        self._kind = kind
        self._message = kind()
        self._size = 0
        self._items = 0
        self._done: list[bytes] = []

    def room(self, size: int) -> M:
        """`size`: bytes of the part. A part larger than a message travels alone."""
        if self._items and (self._size + size > SPLIT_BYTES or self._items >= MAX_ITEMS):
            self._flush()
        self._size += size + OVERHEAD
        self._items += 1
        return self._message

    def finish(self) -> list[bytes]:
        if self._items:
            self._flush()
        return self._done

    def _flush(self) -> None:
        self._done.append(self._message.SerializeToString())
        self._message = self._kind()
        self._size = 0
        self._items = 0
