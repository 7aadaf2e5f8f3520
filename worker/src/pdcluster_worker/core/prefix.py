"""Which blocks hold the KV of which prefixes. The block pool is the only writer.

A block is known here by the chained hash of all tokens up to its end. Blocks that nobody references stay
findable until the pool needs them; then the one that has been idle longest goes first.
"""

from collections import OrderedDict

from pdcluster_worker.core.hashing import HASH_BYTES


class PrefixIndex:
    """Maps hashes to blocks and back, and orders the idle ones by age."""

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._block_of: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    def match(self, hashes: bytes, limit: int) -> list[int]:
        """The blocks of the longest known prefix, at most `limit` of them."""
        found: list[int] = []
        block_of = self._block_of
        for start in range(0, min(len(hashes), limit * HASH_BYTES), HASH_BYTES):
            block = block_of.get(hashes[start : start + HASH_BYTES])
            if block is None:
                break
            found.append(block)
        return found

    def add(self, block: int, digest: bytes) -> None:
        """Index a complete block, unless an equal one is known already."""
        if self.enabled and digest not in self._block_of and block not in self._hash_of:
            self._block_of[digest] = block
            self._hash_of[block] = digest

    def retire(self, block: int) -> bool:
        """Nobody references the block any more. False: it is not indexed, so it is free."""
        if block not in self._hash_of:
            return False
        self._idle[block] = None
        return True

    def revive(self, block: int) -> None:
        """An idle block is referenced again."""
        del self._idle[block]

    def evict(self) -> int:
        """Forget the block that has been idle longest and return it."""
        block, _ = self._idle.popitem(last=False)
        del self._block_of[self._hash_of.pop(block)]
        return block

    def is_idle(self, block: int) -> bool:
        return block in self._idle
