"""From pairs of blocks to few long copies. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.wire import Region
from pdcluster_worker.kv.transport import AddressArray, Writes

BlockArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Runs:
    """Run i copies count[i] blocks: local[i], local[i] + 1, ... to remote[i], remote[i] + 1, ..."""

    local: BlockArray
    remote: BlockArray
    count: BlockArray


@dataclass(frozen=True, slots=True)
class Side:
    """One side's memory: a region per layer, each all K blocks, then all V blocks."""

    regions: tuple[Region, ...]
    num_blocks: int


def coalesce(local: Sequence[int], remote: Sequence[int]) -> Runs:
    """Joins neighbours that are adjacent and ascending on both sides. Order is kept; each pair appears in one run."""
    source = np.asarray(local, dtype=np.int64)
    target = np.asarray(remote, dtype=np.int64)
    breaks = np.flatnonzero((np.diff(source) != 1) | (np.diff(target) != 1)) + 1
    first = np.concatenate(([0], breaks)) if len(source) else np.empty(0, dtype=np.int64)
    count = np.diff(np.append(first, len(source)))
    return Runs(source[first], target[first], count)


def layer_writes(runs: Runs, layers: Sequence[int], block_bytes: int, local: Side, remote: Side) -> Writes:
    """The copies of these runs in these layers: K and V of each, in the order of the layers."""
    length = np.tile((runs.count * block_bytes).astype(np.uint64), 2 * len(layers))
    return Writes(
        local=_addresses(runs.local, layers, block_bytes, local),
        remote=_addresses(runs.remote, layers, block_bytes, remote),
        length=length,
        local_device=local.regions[0].device,
        remote_device=remote.regions[0].device,
    )


def _addresses(blocks: BlockArray, layers: Sequence[int], block_bytes: int, side: Side) -> AddressArray:
    bases = np.array([side.regions[layer].address for layer in layers], dtype=np.uint64)
    halves = np.array([0, side.num_blocks * block_bytes], dtype=np.uint64)
    offsets = (blocks * block_bytes).astype(np.uint64)
    return (bases[:, None, None] + halves[None, :, None] + offsets[None, None, :]).reshape(-1)
