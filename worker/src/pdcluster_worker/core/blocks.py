"""The block pool: who holds each block of KV memory. The engine loop thread is the only writer, through `core/`.

Every block has exactly one holder, and the counts by holder always add up to the pool:
free; running (referenced by requests of this worker, or matched by a lease, read-only); prefix (unreferenced
but indexed, so evictable); leased (a prefill worker may write it); quarantined (the lease has ended, but a
write may still land).

A release may name an issued plan: the reference then ends with that plan's result, because until then the
executor may read or write the block.
"""

import enum
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

from pdcluster_worker.core.prefix import PrefixIndex
from pdcluster_worker.errors import StateError


class Holder(enum.Enum):
    FREE = "free"
    RUNNING = "running"
    PREFIX = "prefix"
    LEASED = "leased"
    QUARANTINED = "quarantined"


class BlockPool:
    """Blocks 0 to num_blocks - 1, reference-counted. Allocation is all or nothing.

    Whoever holds blocks says as what when giving them back; so nothing is kept per block but its references.
    """

    def __init__(self, num_blocks: int, prefix_caching: bool = True) -> None:
        self.num_blocks = num_blocks
        self.index = PrefixIndex(prefix_caching)
        self.completed_plan = 0
        self.pending = 0
        """References that end with an issued plan."""
        self._free = list(range(num_blocks - 1, -1, -1))
        self._references = [0] * num_blocks
        self._leased = 0
        self._quarantined = 0
        self._after_plan: dict[int, list[Sequence[int]]] = {}

    @property
    def available(self) -> int:
        """Blocks that could be allocated now, evicting what nobody references."""
        return len(self._free) + len(self.index.idle)

    def counts(self) -> dict[str, int]:
        """By holder; they add up to the pool, as the running ones are those that nobody else holds."""
        others = {
            Holder.FREE.value: len(self._free),
            Holder.PREFIX.value: len(self.index.idle),
            Holder.LEASED.value: self._leased,
            Holder.QUARANTINED.value: self._quarantined,
        }
        return {**others, Holder.RUNNING.value: self.num_blocks - sum(others.values())}

    def references(self, block: int) -> int:
        return self._references[block]

    def allocate(self, number: int, holder: Holder) -> list[int] | None:
        """So many blocks for one new owner, or None and no change when there are not enough."""
        if number > self.available:
            return None
        taken = min(number, len(self._free))
        split = len(self._free) - taken
        blocks = self._free[split:]
        blocks.reverse()
        del self._free[split:]
        if number > taken:
            blocks += self.index.evict(number - taken)
        references = self._references
        for block in blocks:
            references[block] = 1
        if holder is Holder.LEASED:
            self._leased += number
        return blocks

    def match(self, hashes: bytes, limit: int) -> list[int]:
        """Reference and return the indexed blocks of the longest known prefix, at most `limit`."""
        blocks = self.index.match(hashes, limit)
        references = self._references
        for block in blocks:
            if references[block] == 0:
                del self.index.idle[block]
            references[block] += 1
        return blocks

    def convert_leased(self, number: int, target: Holder) -> None:
        """So many leased blocks go to a request of this worker, or into quarantine."""
        self._leased -= number
        if target is Holder.QUARANTINED:
            self._quarantined += number

    def release(self, blocks: Sequence[int], after_plan: int = 0, holder: Holder = Holder.RUNNING) -> None:
        """Drop one reference of each block, once plan `after_plan` is done."""
        if after_plan > self.completed_plan:
            self._after_plan.setdefault(after_plan, []).append(blocks)
            self.pending += len(blocks)
            return
        if holder is Holder.LEASED:
            self._leased -= len(blocks)
        elif holder is Holder.QUARANTINED:
            self._quarantined -= len(blocks)
        references, indexed, idle, free = self._references, self.index.hash_of, self.index.idle, self._free
        # The end of a prefix goes first, so that eviction takes tails before the heads that lead to them.
        for block in reversed(blocks):
            remaining = references[block] - 1
            references[block] = remaining
            if remaining > 0:
                continue
            if remaining < 0:
                raise StateError(f"block {block} was released twice")
            if block in indexed:
                idle[block] = None
            else:
                free.append(block)

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

    def check_integrity(self, owned: Iterable[Sequence[int]] | None = None) -> None:
        """Recount everything; raises StateError where the books disagree. Slow: for tests and debugging.

        `owned` is every list of blocks that somebody references, those that wait for a plan left out.
        """
        unreferenced = {block for block, number in enumerate(self._references) if number == 0}
        free, idle = set(self._free), set(self.index.idle)
        if len(free) != len(self._free) or free & idle or free | idle != unreferenced:
            raise StateError("the free and the idle blocks are not exactly the unreferenced ones")
        if any((block in self.index) for block in free) or not all((block in self.index) for block in idle):
            raise StateError("a free block is indexed, or an idle one is not")
        if min(self._leased, self._quarantined, self.pending, self.counts()["running"]) < 0:
            raise StateError(f"a count is negative: {self.counts()}")
        if owned is None:
            return
        waiting = itertools.chain.from_iterable(self._after_plan.values())
        counted = Counter(itertools.chain.from_iterable(itertools.chain(owned, waiting)))
        wrong = [block for block, number in enumerate(self._references) if number != counted[block]]
        if wrong:
            raise StateError(f"the references of blocks {wrong[:8]} are not those of their owners")
