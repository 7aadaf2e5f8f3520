"""Which blocks hold the KV of which prefixes. The block pool is the only writer.

A block is known here by the chained hash of all tokens up to its end. Blocks that nobody references stay
findable until the pool needs them; then the one that has been idle longest goes first.
"""

from collections import OrderedDict
from collections.abc import Sequence

from pdcluster_worker.core.hashing import HASH_BYTES


class PrefixIndex:
    """Maps hashes to blocks and back, and orders the idle ones by age."""

    def __init__(self, enabled: bool = True) -> None:
        self._enabled = enabled
        self._block_of: dict[bytes, int] = {}
        self.hash_of: dict[int, bytes] = {}
        """Of the indexed blocks. Others only look whether a block is in it."""
        self.idle: OrderedDict[int, None] = OrderedDict()
        """Indexed and unreferenced, the longest idle first. For the pool alone."""

    def __contains__(self, block: int) -> bool:
        return block in self.hash_of

    def match(self, hashes: bytes, limit: int) -> list[int]:
        """The blocks of the longest known prefix, at most `limit` of them."""
        found: list[int] = []
        block_of = self._block_of
        if not block_of:
            return found
        for start in range(0, min(len(hashes), limit * HASH_BYTES), HASH_BYTES):
            block = block_of.get(hashes[start : start + HASH_BYTES])
            if block is None:
                break
            found.append(block)
        return found

    def add(self, blocks: Sequence[int], hashes: bytes, first: int, end: int) -> None:
        """Index blocks [first, end) of a request, complete ones, unless equal ones are known already."""
        if not self._enabled:
            return
        block_of, hash_of = self._block_of, self.hash_of
        for position in range(first, min(end, len(hashes) // HASH_BYTES)):
            offset = position * HASH_BYTES
            digest = hashes[offset : offset + HASH_BYTES]
            block = blocks[position]
            if digest not in block_of and block not in hash_of:
                block_of[digest] = block
                hash_of[block] = digest

    def evict(self, number: int) -> list[int]:
        """Forget the blocks that have been idle longest and return them."""
        evicted = []
        popitem, block_of, hash_of = self.idle.popitem, self._block_of, self.hash_of
        for _ in range(number):
            block, _ = popitem(last=False)
            del block_of[hash_of.pop(block)]
            evicted.append(block)
        return evicted
