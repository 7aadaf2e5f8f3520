"""A deterministic stand-in for the executor that checks what it is told.

Its KV memory holds, for every position, a number that depends on all tokens up to there. Before computing a
position it checks that everything before it is in the slot's blocks, whoever wrote it: an error of the
scheduler, the prefix cache or a transfer shows at once. The token at output index i is a function of the
request's seed and i alone, so every undisturbed and every disturbed run give the same stream.
"""

import struct
from dataclasses import dataclass, field

from pdcluster_worker.core.events import NO_TOKEN, SampledTokens, StepDone
from pdcluster_worker.core.plan import Admission, StepPlan, TransferSpec

VOCABULARY = 1000
PRIME = (1 << 61) - 1


def sampled_token(seed: int, index: int) -> int:
    return (seed * 1_000_003 + index * 7_919 + 17) % VOCABULARY


def chain(previous: int, token: int) -> int:
    """The KV of a token whose predecessors' KV ends in `previous`."""
    return (previous * 31_337 + token + 1) % PRIME


def pack(tokens: list[int]) -> bytes:
    return struct.pack(f"<{len(tokens)}I", *tokens)


def unpack(tokens: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(tokens) // 4}I", tokens))


@dataclass
class SlotState:
    tokens: list[int]
    prompt_length: int
    seed: int
    blocks: list[int]
    chained: list[int] = field(default_factory=list)

    def kv(self, position: int) -> int:
        while len(self.chained) <= position:
            previous = self.chained[-1] if self.chained else 0
            self.chained.append(chain(previous, self.tokens[len(self.chained)]))
        return self.chained[position]


class FakeExecutor:
    """Runs plans in order. `transfers` collects what plans and outboxes asked for, for a test to act on."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.memory = [[0] * block_size for _ in range(num_blocks)]
        self.slots: dict[int, SlotState] = {}
        self.transfers: list[TransferSpec] = []
        self.last_plan = 0
        self.batch_sizes: list[int] = []
        self.admitted: list[int] = []
        """Seeds, in order of admission."""
        self.broken: set[tuple[int, int]] = set()
        """(seed, output index) at which the logits are not numbers."""

    def run(self, plan: StepPlan) -> StepDone:
        assert plan.plan_id == self.last_plan + 1
        self.last_plan = plan.plan_id
        for slot in plan.drop_slots:
            del self.slots[slot]
        for admission in plan.admissions:
            self._admit(admission)
        for slot, blocks in plan.appended_blocks:
            self.slots[slot].blocks.extend(blocks)
        self.transfers.extend(plan.transfers)
        assert len(set(plan.slots)) == len(plan.slots), "a slot is twice in the batch"
        self.batch_sizes.append(sum(plan.counts))
        sampled_slots: list[int] = []
        tokens: list[int] = []
        for slot, start, count, samples in zip(plan.slots, plan.starts, plan.counts, plan.samples, strict=True):
            token = self._compute(self.slots[slot], start, count, samples)
            if token is not None:
                sampled_slots.append(slot)
                tokens.append(token)
        return StepDone(plan=plan.plan_id, sampled=SampledTokens(slots=sampled_slots, tokens=tokens), seconds=0.01)

    def read(self, block: int) -> list[int]:
        return list(self.memory[block])

    def write(self, block: int, content: list[int]) -> None:
        self.memory[block] = list(content)

    def _admit(self, admission: Admission) -> None:
        assert admission.slot not in self.slots, "the slot is taken"
        self.admitted.append(admission.sampling.seed)
        self.slots[admission.slot] = SlotState(
            tokens=unpack(admission.tokens),
            prompt_length=admission.prompt_length,
            seed=admission.sampling.seed,
            blocks=list(admission.block_ids),
        )

    def _compute(self, slot: SlotState, start: int, count: int, samples: bool) -> int | None:
        size = self.block_size
        for position in range(start):
            held = self.memory[slot.blocks[position // size]][position % size]
            assert held == slot.kv(position), f"the KV of position {position} is not that of the request"
        assert count >= 1
        for position in range(start, start + count):
            self.memory[slot.blocks[position // size]][position % size] = slot.kv(position)
        if not samples:
            return None
        assert start + count == len(slot.tokens), "sampling in the middle of what is known"
        index = len(slot.tokens) - slot.prompt_length
        token = NO_TOKEN if (slot.seed, index) in self.broken else sampled_token(slot.seed, index)
        slot.tokens.append(max(token, 0))
        return token
