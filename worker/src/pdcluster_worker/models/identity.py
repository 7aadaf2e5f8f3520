"""The name of the weights: equal ids mean that KV computed by one worker is good for another."""

import dataclasses
import hashlib

import numpy as np

from pdcluster_worker.models.checkpoint import Checkpoint

WHOLE_TENSOR_BYTES = 1 << 20
SAMPLES, SAMPLE_BYTES = 64, 4096


def model_id(checkpoint: Checkpoint) -> str:
    """Hex digest of the config and of every tensor's name, type, shape and content, wherever the files are.

    Content is read whole up to 1 MiB and sampled beyond, so that a large checkpoint costs a moment: files of
    different weights differ in every tensor that training touched.
    """
    digest = hashlib.sha256(repr(dataclasses.astuple(checkpoint.config)).encode())
    for name in sorted(checkpoint.tensors):
        tensor = checkpoint.tensors[name]
        digest.update(f"|{name}|{tensor.dtype}|{tensor.shape}|{tensor.place.length}|".encode())
        for start, stop in _pieces(tensor.place.length):
            digest.update(tensor.place.read(start, stop).tobytes())
    return digest.hexdigest()[:32]


def _pieces(length: int) -> list[tuple[int, int]]:
    if length <= WHOLE_TENSOR_BYTES:
        return [(0, length)]
    starts = np.linspace(0, length - SAMPLE_BYTES, SAMPLES).astype(np.int64).tolist()
    return [(start, start + SAMPLE_BYTES) for start in starts]
