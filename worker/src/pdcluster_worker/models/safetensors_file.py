"""One safetensors file: its header checked, its tensors read by rows.

The safetensors package gives NumPy no bfloat16 and names no tensor in its errors, hence this reader of the
format (8 bytes of header length, a JSON header, the data).
"""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.checkpoint import FloatArray, StoredTensor
from pdcluster_worker.models.file_range import FileRange

MAX_HEADER_BYTES = 100 << 20


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _copy_float(data: npt.NDArray[np.uint8], kind: str) -> FloatArray:
    return data.view(kind).astype(np.float32)


def _widen_bfloat16(data: npt.NDArray[np.uint8], kind: str) -> FloatArray:
    wide = data.view(kind).astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


_DTYPES: dict[str, tuple[int, str, Callable[[npt.NDArray[np.uint8], str], FloatArray]]] = {
    "F32": (4, "<f4", _copy_float),
    "F16": (2, "<f2", _copy_float),
    "BF16": (2, "<u2", _widen_bfloat16),
}


def read_tensors(path: Path) -> dict[str, StoredTensor]:
    """Raises CheckpointError for a file that is missing, truncated or malformed, naming file and tensor."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
                raise CheckpointError(f"{path}: truncated or not a safetensors file: its header does not fit")
            header = file.read(length)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    body = FileRange(path, 8 + length, size - 8 - length)
    return {name: _tensor(name, entry, body) for name, entry in _header(path, header).items()}


def _header(path: Path, header: bytes) -> dict[str, _Entry]:
    try:
        entries = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        return {name: msgspec.json.decode(raw, type=_Entry) for name, raw in entries.items()}
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: the header is not that of a safetensors file: {error}") from error


def _tensor(name: str, entry: _Entry, body: FileRange) -> StoredTensor:
    label = f"{body.path}: tensor {name}"
    if entry.dtype not in _DTYPES:
        raise CheckpointError(f"{label} has dtype {entry.dtype}; supported: {', '.join(_DTYPES)}")
    width, kind, convert = _DTYPES[entry.dtype]
    start, stop = entry.data_offsets
    if min(entry.shape, default=1) < 0 or start < 0 or stop - start != math.prod(entry.shape) * width:
        raise CheckpointError(f"{label}: offsets {start} to {stop} do not fit shape {list(entry.shape)}")
    if stop > body.length:
        raise CheckpointError(
            f"{label} ends at byte {stop} of the data, which has {body.length}: the file is truncated"
        )
    row_bytes = math.prod(entry.shape[1:]) * width
    place = FileRange(body.path, body.start + start, stop - start)

    def read(first: int, last: int) -> FloatArray:
        data = place.read(first * row_bytes, last * row_bytes)
        return convert(data, kind).reshape(last - first, *entry.shape[1:])

    return StoredTensor(label, entry.shape, entry.dtype, place, read)
