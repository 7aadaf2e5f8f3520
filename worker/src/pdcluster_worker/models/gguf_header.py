"""The header of a .gguf file: its metadata and where its tensors are. No tensor is read.

The `gguf` library's own reader makes an array of every string of the vocabulary, which takes seconds for each of
the processes that start; it is used for what the types of tensors mean and how they are dequantised.
"""

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdcluster_worker.errors import CheckpointError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = "general.alignment"
_DEFAULT_ALIGNMENT = 32
VERSIONS = (2, 3)


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """`shape` as NumPy counts it (rows first); `type` is the format's number; `start` a byte of the file."""

    shape: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True, slots=True)
class GGUFHeader:
    metadata: dict[str, Any]
    tensors: dict[str, TensorPlace]
    file_bytes: int


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset = 4

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.offset)
        self.offset += struct.calcsize("<" + form)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if length > len(self.data) - self.offset:
            raise struct.error("a string runs over the end of the file")
        raw = self.data[self.offset : self.offset + length]
        self.offset += length
        return raw.decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if count > len(self.data) - self.offset:
            raise struct.error("an array runs over the end of the file")
        if inner in (_STRING, _ARRAY):
            return [self.value(inner) for _ in range(count)]
        form = f"<{count}{_SCALARS[inner]}"
        items = list(struct.unpack_from(form, self.data, self.offset))
        self.offset += struct.calcsize(form)
        return items

    def tensor(self) -> tuple[str, TensorPlace]:
        """Its place counts from the start of the data, which begins where the header ends."""
        name, axes = self.string(), self.scalar("I")
        if axes > 4:
            raise struct.error(f"tensor {name} has {axes} axes")
        shape = tuple(self.scalar("Q") for _ in range(axes))
        return name, TensorPlace(shape[::-1], self.scalar("I"), self.scalar("Q"))


def read_header(path: Path) -> GGUFHeader:
    """CheckpointError when it is no GGUF file, or ends too early."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(_Cursor(data), path)
    except (struct.error, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: the GGUF header cannot be read: {error}") from error


def _read(cursor: _Cursor, path: Path) -> GGUFHeader:
    if cursor.data[:4] != b"GGUF":
        raise CheckpointError(f"{path}: not a GGUF file")
    version = cursor.scalar("I")
    if version not in VERSIONS:
        raise CheckpointError(f"{path}: GGUF version {version} is not supported (2 and 3 are)")
    tensor_count, count = cursor.scalar("Q"), cursor.scalar("Q")
    if max(tensor_count, count) > len(cursor.data):
        raise struct.error("it counts more entries than the file has bytes")
    metadata = {cursor.string(): cursor.value(cursor.scalar("I")) for _ in range(count)}
    places = [cursor.tensor() for _ in range(tensor_count)]
    alignment = metadata.get(_ALIGNMENT, _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise CheckpointError(f"{path}: {_ALIGNMENT} must be a positive integer, not {alignment!r}")
    base = math.ceil(cursor.offset / alignment) * alignment
    tensors = {name: TensorPlace(place.shape, place.type, base + place.start) for name, place in places}
    if len(tensors) != tensor_count:
        raise CheckpointError(f"{path}: a tensor is named twice")
    return GGUFHeader(metadata, tensors, len(cursor.data))
