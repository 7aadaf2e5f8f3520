"""The block pool: who holds each block of KV memory. The engine loop thread is the only writer, through `core/`.

Every block has exactly one holder, and the counts by holder always add up to the pool:
free; running (referenced by requests of this worker, or matched by a lease, read-only); prefix (unreferenced
but indexed, so evictable); leased (a prefill worker may write it); quarantined (the lease has ended, but a
write may still land).

A release may name an issued plan: the reference then ends with that plan's result, because until then the
executor may read or write the block.
"""

import enum
from collections.abc import Iterable, Sequence

from pdcluster_worker.core.hashing import HASH_BYTES
from pdcluster_worker.core.prefix import PrefixIndex
from pdcluster_worker.errors import StateError


class Holder(enum.IntEnum):
    FREE = 0
    RUNNING = 1
    PREFIX = 2
    LEASED = 3
    QUARANTINED = 4


class BlockPool:
    """Blocks 0 to num_blocks - 1, reference-counted. Allocation is all or nothing."""

    def __init__(self, num_blocks: int, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.index = PrefixIndex(prefix_caching)
        self.completed_plan = 0
        self.pending = 0
        """References that end with an issued plan."""
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks
        self._holder = [Holder.FREE] * num_blocks
        self._counts = [num_blocks, 0, 0, 0, 0]
        self._after_plan: dict[int, list[Sequence[int]]] = {}

    @property
    def available(self) -> int:
        """Blocks that could be allocated now, evicting what nobody references."""
        return len(self._free) + self.index.idle_count

    def counts(self) -> dict[str, int]:
        return {holder.name.lower(): self._counts[holder] for holder in Holder}

    def count(self, holder: Holder) -> int:
        return self._counts[holder]

    def holder_of(self, block: int) -> Holder:
        return self._holder[block]

    def allocate(self, number: int, holder: Holder) -> list[int] | None:
        """So many blocks for one new owner, or None and no change when there are not enough."""
        if number > self.available:
            return None
        taken = min(number, len(self._free))
        split = len(self._free) - taken
        blocks = self._free[split:]
        blocks.reverse()
        del self._free[split:]
        while len(blocks) < number:
            blocks.append(self.index.evict())
        for block in blocks:
            self._references[block] = 1
            self._holder[block] = holder
        self._counts[Holder.FREE] -= taken
        self._counts[Holder.PREFIX] -= number - taken
        self._counts[holder] += number
        return blocks

    def match(self, hashes: bytes, limit: int) -> list[int]:
        """Reference and return the indexed blocks of the longest known prefix, at most `limit`."""
        blocks = self.index.match(hashes, limit)
        for block in blocks:
            if self._references[block] == 0:
                self.index.revive(block)
                self._move(block, Holder.RUNNING)
            self._references[block] += 1
        return blocks

    def add_to_index(self, blocks: Sequence[int], hashes: bytes, first: int, end: int) -> None:
        """Index blocks [first, end) of a request: complete, and never to be written again."""
        for position in range(first, min(end, len(hashes) // HASH_BYTES)):
            offset = position * HASH_BYTES
            self.index.add(blocks[position], hashes[offset : offset + HASH_BYTES])

    def convert(self, blocks: Iterable[int], target: Holder) -> None:
        """Hand exclusively owned blocks from one holder to another."""
        for block in blocks:
            if self._references[block] != 1:
                raise StateError(f"block {block} has {self._references[block]} references; only one may change hands")
            self._move(block, target)

    def release(self, blocks: Sequence[int], after_plan: int = 0) -> None:
        """Drop one reference of each block, once plan `after_plan` is done."""
        if after_plan > self.completed_plan:
            self._after_plan.setdefault(after_plan, []).append(blocks)
            self.pending += len(blocks)
            return
        # The end of a prefix goes first, so that eviction takes tails before the heads that lead to them.
        for block in reversed(blocks):
            self._drop_reference(block)

    def plan_done(self, plan: int) -> None:
        """Plans end in the order of their ids."""
        self.completed_plan = plan
        for blocks in self._after_plan.pop(plan, ()):
            self.pending -= len(blocks)
            self.release(blocks)

    def executor_gone(self) -> None:
        """No plan will be read from or written to memory again."""
        for plan in sorted(self._after_plan):
            self.plan_done(plan)

    def check_integrity(self) -> None:
        """Recount everything; raises StateError where the counts disagree. For tests and debugging: slow."""
        for holder in Holder:
            if self._holder.count(holder) != self._counts[holder]:
                raise StateError(f"{holder.name} counts {self._counts[holder]}, has {self._holder.count(holder)}")
        free = set(self._free)
        if len(free) != len(self._free):
            raise StateError("a block is twice on the free list")
        for block, holder in enumerate(self._holder):
            unreferenced = holder in (Holder.FREE, Holder.PREFIX)
            consistent = (
                unreferenced == (self._references[block] == 0)
                and (holder is Holder.FREE) == (block in free)
                and (holder is Holder.PREFIX) == self.index.is_idle(block)
            )
            if not consistent:
                raise StateError(f"block {block} is {holder.name} with {self._references[block]} references")

    def _drop_reference(self, block: int) -> None:
        remaining = self._references[block] - 1
        if remaining < 0:
            raise StateError(f"block {block} was released twice")
        self._references[block] = remaining
        if remaining:
            return
        if self.index.retire(block):
            self._move(block, Holder.PREFIX)
        else:
            self._free.append(block)
            self._move(block, Holder.FREE)

    def _move(self, block: int, target: Holder) -> None:
        self._counts[self._holder[block]] -= 1
        self._counts[target] += 1
        self._holder[block] = target
