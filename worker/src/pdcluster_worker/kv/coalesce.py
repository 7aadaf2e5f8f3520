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


class Side:
    """One side's memory: a region per layer, each all K blocks, then all V blocks."""

    def __init__(self, regions: tuple[Region, ...], num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.device = regions[0].device
        self._bases = np.array([region.address for region in regions], dtype=np.uint64)

    def addresses(self, blocks: BlockArray, layers: Sequence[int], block_bytes: int) -> AddressArray:
        """Of these K blocks and then these V blocks, layer after layer."""
        k_offsets = blocks * block_bytes
        offsets = np.concatenate((k_offsets, k_offsets + self.num_blocks * block_bytes)).astype(np.uint64)
        addresses: AddressArray = np.add.outer(self._bases[list(layers)], offsets).reshape(-1)
        return addresses


def coalesce(local: Sequence[int], remote: Sequence[int]) -> Runs:
    """Joins neighbours that are adjacent and ascending on both sides. Order is kept; each pair appears in one run.

    A plain loop: for the few blocks of a prompt it takes a tenth of what array operations cost to set up.
    """
    sources: list[int] = []
    targets: list[int] = []
    counts: list[int] = []
    next_source = next_target = -1
    for source, target in zip(local, remote, strict=True):
        if source == next_source and target == next_target:
            counts[-1] += 1
        else:
            sources.append(source)
            targets.append(target)
            counts.append(1)
        next_source, next_target = source + 1, target + 1
    return Runs(*(np.array(column, dtype=np.int64) for column in (sources, targets, counts)))


def layer_writes(runs: Runs, layers: Sequence[int], block_bytes: int, local: Side, remote: Side) -> Writes:
    """The copies of these runs in these layers: K and V of each, in the order of the layers."""
    lengths = (runs.count * block_bytes).astype(np.uint64)
    return Writes(
        local=local.addresses(runs.local, layers, block_bytes),
        remote=remote.addresses(runs.remote, layers, block_bytes),
        length=np.concatenate((lengths,) * (2 * len(layers))),
        local_device=local.device,
        remote_device=remote.device,
    )
