"""Plans become arrays; what a plan cannot mean is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdcluster_worker.core.events import NO_TOKEN
from pdcluster_worker.core.plan import Admission, StepPlan
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.errors import StateError
from pdcluster_worker.executor.slots import MAX_SLOTS, SlotTable
from pdcluster_worker.kv.layout import KVLayout

LAYOUT = KVLayout("m", "float32", layers=2, num_blocks=40, kv_heads=1, block_size=4, head_dim=8)
MAX_LENGTH, VOCABULARY = 64, 1000


def table() -> SlotTable:
    return SlotTable(LAYOUT, MAX_LENGTH, VOCABULARY, slots=2)


def admit(slot: int, tokens: list[int], blocks: tuple[int, ...], prompt_length: int | None = None) -> Admission:
    data = np.array(tokens, dtype="<u4").tobytes()
    return Admission(slot, bytes(16), 1, data, prompt_length or len(tokens), SamplingParams(seed=slot), blocks)


def step(entries: list[tuple[int, int, int, bool]], **parts: object) -> StepPlan:
    columns = list(zip(*entries, strict=True)) or [(), (), (), ()]
    return StepPlan(1, slots=columns[0], starts=columns[1], counts=columns[2], samples=columns[3], **parts)  # type: ignore[arg-type]


def run(slots: SlotTable, plan: StepPlan, tokens: list[int]) -> list[int]:
    slots.apply(plan)
    slots.batch(plan)
    return slots.commit(plan, tokens)


def test_chunks_and_decodes_in_one_flat_batch() -> None:
    slots = table()
    run(slots, step([(0, 0, 3, True)], admissions=(admit(0, [5, 6, 7], (9,)),)), [8])
    plan = step(
        [(0, 3, 1, True), (1, 4, 3, False)],
        admissions=(admit(1, list(range(100, 110)), (3, 4, 5)),),
        appended_blocks=((0, (11, 12)),),
    )
    slots.apply(plan)
    batch = slots.batch(plan)
    assert batch.token_ids.tolist() == [8, 104, 105, 106]
    assert batch.positions.tolist() == [3, 4, 5, 6]
    assert batch.block_tables.tolist() == [[9, 11, 12], [3, 4, 5]]
    assert batch.sample_entries.tolist() == [0]
    assert batch.sampling[0].tokens.tolist() == [5, 6, 7, 8]
    assert (batch.sampling[0].output_index, batch.sampling[0].params.seed) == (1, 0)
    assert slots.commit(plan, [9]) == [0]
    assert (slots.computed(0), slots.computed(1), slots.computed(99)) == (4, 7, 0)


def test_a_slot_is_dropped_before_it_is_given_again() -> None:
    slots = table()
    run(slots, step([(0, 0, 6, True)], admissions=(admit(0, [1, 2, 3, 4, 5, 6], (0, 1)),)), [7])
    plan = step([(0, 0, 2, True)], drop_slots=(0,), admissions=(admit(0, [8, 9], (5,)),))
    slots.apply(plan)
    assert slots.batch(plan).block_tables.tolist() == [[5]]
    assert slots.occupied == 1


def test_a_resubmitted_request_keeps_its_prompt_length() -> None:
    slots = table()
    plan = step([(0, 0, 5, True)], admissions=(admit(0, [1, 2, 3, 4, 5], (0, 1), prompt_length=2),))
    slots.apply(plan)
    assert slots.batch(plan).sampling[0].output_index == 3


def test_rows_grow_and_keep_what_they_hold() -> None:
    slots = table()
    run(slots, step([(1, 0, 3, True)], admissions=(admit(1, [5, 6, 7], (1,)),)), [8])
    plan = step([(1, 3, 1, True), (40, 0, 2, True)], admissions=(admit(40, [1, 2], (7,)),))
    slots.apply(plan)
    batch = slots.batch(plan)
    assert batch.token_ids.tolist() == [8, 1, 2]
    assert batch.block_tables.tolist() == [[1], [7]]


def test_an_empty_plan_is_a_step() -> None:
    slots = table()
    assert run(slots, StepPlan(1), []) == []


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (step([], drop_slots=(1,)), "slot 1 holds no request"),
        (step([], appended_blocks=((1, (1,)),)), "slot 1 holds no request"),
        (step([], admissions=(admit(0, [1], (0,)),)), "cannot take a request"),
        (step([], admissions=(admit(MAX_SLOTS, [1], (0,)),)), "cannot take a request"),
        (step([], admissions=(admit(1, [1000], (0,)),)), "outside the vocabulary"),
        (step([], admissions=(admit(1, [1] * 65, (0,)),)), "limit 64"),
        (step([], admissions=(admit(1, [1], (0,), prompt_length=2),)), "prompt 2"),
        (step([], admissions=(admit(1, [1], (40,)),)), "a block is outside 0 to 39"),
        (step([], admissions=(admit(1, [1], (-1,)),)), "a block is outside"),
        (step([], appended_blocks=((0, tuple(range(17))),)), "exceed the limit"),
        (step([(1, 0, 1, False)]), "holds no request"),
        (step([(-1, 0, 1, False)]), "holds no request"),
        (step([(9, 0, 1, False)]), "holds no request"),
        (step([(0, 0, 1, False), (0, 1, 1, False)]), "a slot twice"),
        (step([(0, 0, 6, False)]), "tokens are not known"),
        (step([(0, 0, 0, False)]), "tokens are not known"),
        (step([(0, -1, 2, False)]), "tokens are not known"),
        (step([(0, 4, 1, False)]), "beyond a slot's blocks"),
        (step([(0, 0, 4, True)]), "before its last token"),
        (StepPlan(1, slots=(0,), starts=(0, 1), counts=(1,), samples=(True,)), "differ in length"),
    ],
)
def test_what_cannot_be_carried_out_is_refused(plan: StepPlan, words: str) -> None:
    slots = table()
    slots.apply(step([], admissions=(admit(0, [1, 2, 3, 4, 5], (0,)),)))
    with pytest.raises(StateError, match=words):
        run(slots, plan, [])


def test_as_many_tokens_as_entries_that_sample() -> None:
    slots = table()
    plan = step([(0, 0, 1, True)], admissions=(admit(0, [1], (0,)),))
    slots.apply(plan)
    with pytest.raises(StateError, match="1 entries sample, 2 tokens"):
        slots.commit(plan, [1, 2])


@settings(deadline=None)
@given(st.lists(st.integers(1, 7) | st.integers(14, 30), min_size=1, max_size=6), st.integers(1, 30))
def test_any_chunking_yields_each_position_once_with_its_token(chunks: list[int], length: int) -> None:
    slots, tokens, seen = table(), [7 * position % VOCABULARY for position in range(length)], []
    slots.apply(step([], admissions=(admit(0, tokens, tuple(range(-(-length // 4)))),)))
    start = 0
    while start < length:
        count = min(chunks[len(seen) % len(chunks)], length - start)
        plan = step([(0, start, count, start + count == length)])
        batch = slots.batch(plan)
        seen += list(zip(batch.positions.tolist(), batch.token_ids.tolist(), strict=True))
        slots.commit(plan, [1] * int(plan.samples[0]))
        start += count
    assert seen == list(enumerate(tokens))


def test_a_request_without_a_token_leaves_a_slot_that_the_plan_under_way_can_read() -> None:
    slots = table()
    run(slots, step([(0, 0, 3, True)], admissions=(admit(0, [5, 6, 7], (9,)),)), [NO_TOKEN])
    plan = step([(0, 3, 1, True)])
    slots.apply(plan)
    assert slots.batch(plan).token_ids.tolist() == [0]
