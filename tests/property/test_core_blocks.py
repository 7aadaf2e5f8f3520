"""The block pool under every order of allocation, prefix sharing, leasing, quarantine and release."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from pdcluster_worker.core.blocks import BlockPool, Holder
from pdcluster_worker.core.hashing import HASH_BYTES, block_hashes

BLOCK_SIZE = 2


class PoolMachine(RuleBasedStateMachine):
    """The model: every list of blocks that somebody holds, and as what."""

    owned = Bundle("owned")

    @initialize(size=st.integers(1, 24), caching=st.booleans())
    def make(self, size: int, caching: bool) -> None:
        self.pool = BlockPool(size, caching)
        self.held: dict[int, tuple[list[int], Holder]] = {}
        self.next_owner = 0
        self.issued = 0
        self.written: dict[int, bytes] = {}

    def hold(self, blocks: list[int], holder: Holder) -> int:
        self.next_owner += 1
        self.held[self.next_owner] = (blocks, holder)
        return self.next_owner

    @rule(target=owned, tokens=st.binary(min_size=0, max_size=8), extra=st.integers(0, 3))
    def start(self, tokens: bytes, extra: int) -> object:
        """A request: matched prefix plus new blocks, all or nothing; then it is computed and indexed."""
        prompt = b"".join((byte % 2).to_bytes(4, "little") for byte in tokens)
        hashes = block_hashes(prompt, BLOCK_SIZE, "m", "l", "")
        matched = self.pool.match(hashes, len(hashes) // HASH_BYTES)
        for position, block in enumerate(matched):
            assert self.written[block] == hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES]
        before = self.pool.available
        needed = len(hashes) // HASH_BYTES - len(matched) + extra
        blocks = self.pool.allocate(needed, Holder.RUNNING)
        if blocks is None:
            assert needed > before
            self.pool.release(matched)
            return multiple()
        assert len(set(blocks)) == needed
        exclusive = {block for held, _ in self.held.values() for block in held}
        assert not exclusive & set(blocks), "a block has two owners"
        every = matched + blocks
        for position in range(len(matched), len(hashes) // HASH_BYTES):
            self.written[every[position]] = hashes[position * HASH_BYTES : (position + 1) * HASH_BYTES]
        self.pool.index.add(every, hashes, 0, len(every))
        return self.hold(every, Holder.RUNNING)

    @rule(target=owned, number=st.integers(1, 6))
    def lease(self, number: int) -> object:
        blocks = self.pool.allocate(number, Holder.LEASED)
        return multiple() if blocks is None else self.hold(blocks, Holder.LEASED)

    @rule(owner=owned, target_holder=st.sampled_from([Holder.RUNNING, Holder.QUARANTINED]))
    def convert(self, owner: int, target_holder: Holder) -> None:
        blocks, holder = self.held.get(owner, ([], Holder.FREE))
        if holder is Holder.LEASED:
            self.pool.convert_leased(len(blocks), target_holder)
            self.held[owner] = (blocks, target_holder)

    @rule(owner=consumes(owned), later=st.booleans())
    def release(self, owner: int, later: bool) -> None:
        blocks, holder = self.held[owner]
        if later and holder is Holder.RUNNING:
            self.issued = max(self.issued, self.pool.completed_plan + 1)
            available = self.pool.available
            self.pool.release(blocks, self.issued)
            assert self.pool.available == available, "usable before the plan that names it is done"
        else:
            self.pool.release(blocks, holder=holder)
        del self.held[owner]

    @rule()
    def finish_plan(self) -> None:
        self.issued = max(self.issued, self.pool.completed_plan + 1)
        self.pool.plan_done(self.pool.completed_plan + 1)

    @invariant()
    def books_balance(self) -> None:
        self.pool.check_integrity([blocks for blocks, _ in self.held.values()])
        counts = self.pool.counts()
        assert sum(counts.values()) == self.pool.num_blocks
        for holder in (Holder.LEASED, Holder.QUARANTINED):
            assert counts[holder.value] == sum(len(blocks) for blocks, held in self.held.values() if held is holder)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for blocks, holder in self.held.values():
            self.pool.release(blocks, holder=holder)
        self.pool.executor_gone()
        self.pool.check_integrity([])
        assert self.pool.available == self.pool.num_blocks


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
