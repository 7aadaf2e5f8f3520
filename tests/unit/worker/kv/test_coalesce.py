"""Coalescing joins what is adjacent on both sides, and loses or adds no block."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pdcluster_worker.core.wire import Region
from pdcluster_worker.kv.coalesce import Side, coalesce, layer_writes

BLOCKS = 40
PAIRS = st.integers(0, BLOCKS).flatmap(
    lambda count: st.tuples(
        st.permutations(range(BLOCKS)).map(lambda blocks: blocks[:count]),
        st.permutations(range(BLOCKS)).map(lambda blocks: blocks[:count]),
    )
)


def expand(runs) -> list[tuple[int, int]]:  # type: ignore[no-untyped-def]
    return [
        (int(local) + step, int(remote) + step)
        for local, remote, count in zip(runs.local, runs.remote, runs.count, strict=True)
        for step in range(count)
    ]


@settings(deadline=None)
@given(PAIRS)
def test_runs_are_the_pairs_in_order(pairs: tuple[list[int], list[int]]) -> None:
    local, remote = pairs
    assert expand(coalesce(local, remote)) == list(zip(local, remote, strict=True))


@settings(deadline=None)
@given(PAIRS)
def test_no_two_neighbouring_runs_could_be_joined(pairs: tuple[list[int], list[int]]) -> None:
    runs = coalesce(*pairs)
    ends = np.stack((runs.local[:-1] + runs.count[:-1], runs.remote[:-1] + runs.count[:-1]))
    assert not (ends == np.stack((runs.local[1:], runs.remote[1:]))).all(axis=0).any()


@settings(deadline=None)
@given(PAIRS)
def test_the_copies_of_a_layer_move_exactly_its_blocks(pairs: tuple[list[int], list[int]]) -> None:
    local, remote = pairs
    block_bytes, layers, other = 8, 2, BLOCKS + 5
    here = np.arange(layers * 2 * BLOCKS * block_bytes, dtype=np.int64)
    there = np.full(layers * 2 * other * block_bytes, -1, dtype=np.int64)
    own = Side(tuple(Region(layer * here.size // layers, here.size // layers, 0) for layer in range(layers)), BLOCKS)
    peer = Side(tuple(Region(layer * there.size // layers, there.size // layers, 0) for layer in range(layers)), other)
    writes = layer_writes(coalesce(local, remote), range(layers), block_bytes, own, peer)
    for source, target, length in zip(writes.local, writes.remote, writes.length, strict=True):
        there[int(target) : int(target) + int(length)] = here[int(source) : int(source) + int(length)]
    source_blocks = here.reshape(layers, 2, BLOCKS, block_bytes)
    target_blocks = there.reshape(layers, 2, other, block_bytes)
    assert np.array_equal(target_blocks[:, :, remote], source_blocks[:, :, local])
    assert (np.delete(target_blocks, remote, axis=2) == -1).all()
    assert writes.total_bytes == len(local) * 2 * layers * block_bytes


def test_a_whole_region_is_two_copies_per_layer() -> None:
    side = Side((Region(0, 2 * 4 * 8, 0),), 4)
    writes = layer_writes(coalesce([0, 1, 2, 3], [0, 1, 2, 3]), [0], 8, side, side)
    assert writes.local.tolist() == [0, 32]
    assert writes.length.tolist() == [32, 32]
