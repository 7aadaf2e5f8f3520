"""What a transfer may post when, and that it ends once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.errors import StateError
from pdcluster_worker.executor.transfers import Span, Transfer, TransferState, find_fault, ready_blocks
from pdcluster_worker.kv.transport import WriteHandle

BLOCK = 16
LAYERS = 3


def spec(tokens: int = 50, first: int = 0, computed: int = 0, slot: int = 0) -> TransferSpec:
    blocks = tuple(range(first, -(-tokens // BLOCK)))
    return TransferSpec(1, slot, "peer", first, blocks, blocks, tokens, computed, 10.0)


def started(tokens: int = 50, first: int = 0, computed: int = 0) -> Transfer:
    transfer = Transfer.begin(spec(tokens, first), 10.0, BLOCK, LAYERS)
    transfer.activate(computed)
    return transfer


@pytest.mark.parametrize(
    ("first", "computed", "ready"),
    [(0, 0, 0), (0, 15, 0), (0, 16, 1), (0, 49, 3), (0, 50, 4), (2, 16, 0), (2, 48, 1), (2, 50, 2), (4, 50, 0)],
)
def test_full_blocks_go_at_once_and_the_last_with_the_end_of_the_prompt(first: int, computed: int, ready: int) -> None:
    assert ready_blocks(spec(50, first), BLOCK, computed) == ready


def test_nothing_is_due_before_the_step_thread_has_reached_the_transfer() -> None:
    transfer = Transfer.begin(spec(computed=50), 10.0, BLOCK, LAYERS)
    assert transfer.due() == []
    transfer.activate(0)
    assert transfer.due() == [Span((0, 1, 2), 0, 4)]


def test_layers_that_stand_alike_are_posted_together() -> None:
    transfer = started(computed=16)
    transfer.layer_written(0, 40)
    assert transfer.due() == [Span((0,), 0, 2), Span((1, 2), 0, 1)]


def test_progress_never_goes_back() -> None:
    transfer = started(computed=50)
    transfer.layer_written(1, 10)
    assert transfer.complete()


def test_a_transfer_is_done_when_all_is_posted_and_all_handles_are_done() -> None:
    transfer = started(computed=50)
    transfer.mark_posted(Span((0, 1, 2), 0, 4), WriteHandle(1), 100, now=2.0)
    assert transfer.finish(3.0) is None
    transfer.handle_done(WriteHandle(1))
    report = transfer.finish(5.0)
    assert report is not None
    assert (report.ok, report.bytes, report.seconds) == (True, 100, 3.0)
    with pytest.raises(StateError):
        transfer.finish(6.0)


def test_a_failed_transfer_waits_for_its_handles_and_keeps_the_first_reason() -> None:
    transfer = started(computed=50)
    transfer.mark_posted(Span((0, 1, 2), 0, 2), WriteHandle(1), 100, now=2.0)
    transfer.mark_posted(Span((0, 1, 2), 2, 4), WriteHandle(2), 100, now=2.0)
    transfer.handle_failed(WriteHandle(1))
    transfer.fail("cancelled")
    assert transfer.due() == []
    assert transfer.finish(3.0) is None
    transfer.handle_done(WriteHandle(2))
    report = transfer.finish(3.0)
    assert report is not None
    assert (report.ok, report.bytes, report.reason) == (False, 100, "a write failed")
    assert report.write_failed


def test_a_transfer_with_nothing_to_send_is_done_at_once() -> None:
    report = started(tokens=48, first=3).finish(1.0)
    assert report is not None
    assert (report.ok, report.bytes, report.seconds) == (True, 0, 0.0)


@settings(deadline=None)
@given(
    st.integers(1, 200).flatmap(
        lambda tokens: st.tuples(
            st.just(tokens),
            st.integers(0, -(-tokens // BLOCK)),
            st.integers(0, tokens),
            st.lists(st.tuples(st.integers(0, LAYERS - 1), st.integers(1, tokens)), max_size=20),
        )
    )
)
def test_every_block_of_every_layer_is_posted_once_and_never_early(
    case: tuple[int, int, int, list[tuple[int, int]]],
) -> None:
    tokens, first, computed, progress = case
    transfer = started(tokens, first, computed)
    posted: set[tuple[int, int]] = set()
    for layer, end in [*progress, *((layer, tokens) for layer in range(LAYERS))]:
        transfer.layer_written(layer, end)
        for span in transfer.due():
            transfer.mark_posted(span, WriteHandle(1), 1, now=0.0)
            pairs = {(layer, block) for layer in span.layers for block in range(span.begin, span.end)}
            assert not pairs & posted
            assert all(transfer.computed[layer] >= min(tokens, (first + block + 1) * BLOCK) for layer, block in pairs)
            posted |= pairs
    assert len(posted) == LAYERS * (-(-tokens // BLOCK) - first)
    assert transfer.state is TransferState.SENDING


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (TransferSpec(1, 0, "p", 0, (0, 1), (0,), 32, 0, 1.0), "2 local and 1 remote"),
        (TransferSpec(1, 0, "p", 1, (0, 1), (0, 1), 32, 0, 1.0), "from block 1"),
        (TransferSpec(1, -1, "p", 0, (0,), (0,), 16, 15, 1.0), "no slot"),
        (TransferSpec(1, 0, "p", 0, (9,), (0,), 16, 0, 1.0), "local block is outside 0 to 7"),
        (TransferSpec(1, 0, "p", 0, (0,), (9,), 16, 0, 1.0), "remote block is outside 0 to 8"),
    ],
)
def test_faults_are_named(faulty: TransferSpec, words: str) -> None:
    assert words in find_fault(faulty, BLOCK, local_blocks=8, remote_blocks=9)


def test_a_good_spec_has_no_fault() -> None:
    assert find_fault(spec(), BLOCK, local_blocks=8, remote_blocks=8) == ""
