"""The load driver counts every token once, in order, and knows the times."""

import pytest
from load_ledger import Ledger, LedgerError

from pdcluster_proto.v1.request_pb2 import TokenBatch


def batch(*entries: tuple[int, int, int]) -> TokenBatch:
    """Of (handle, index, token)."""
    handles, indices, tokens = zip(*entries, strict=True)
    return TokenBatch(handles=handles, indices=indices, tokens=tokens)


@pytest.fixture(params=[False, True], ids=["columns", "tokens kept"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    ledger = Ledger(requests=3, handles=6, keep_tokens=request.param)
    for number in range(3):
        ledger.own(number + 1, number)
        ledger.submitted[number] = 1.0
    return ledger


def test_first_tokens_and_gaps(ledger: Ledger) -> None:
    ledger.add(batch((1, 0, 7), (2, 0, 8)), 2.0)
    ledger.add(batch((1, 1, 7), (2, 1, 8), (3, 0, 9)), 2.5)
    assert ledger.received.tolist() == [2, 2, 1]
    assert ledger.times_to_first_token().tolist() == [1.0, 1.0, 1.5]
    assert ledger.gaps().tolist() == [0.5, 0.5]


def test_a_token_that_is_known_is_dropped(ledger: Ledger) -> None:
    ledger.add(batch((1, 0, 7)), 2.0)
    ledger.add(batch((1, 0, 7), (2, 0, 8)), 3.0)
    assert ledger.received.tolist() == [1, 1, 0]
    assert ledger.gaps().tolist() == []


def test_several_tokens_of_one_request_in_a_message(ledger: Ledger) -> None:
    ledger.add(batch((1, 0, 7), (1, 1, 8), (2, 0, 9), (1, 2, 5)), 2.0)
    assert ledger.received.tolist() == [3, 1, 0]
    if ledger.tokens is not None:
        assert ledger.tokens == [[7, 8, 5], [9], []]


def test_a_missing_token_is_an_error(ledger: Ledger) -> None:
    ledger.add(batch((1, 0, 7)), 2.0)
    with pytest.raises(LedgerError):
        ledger.add(batch((1, 2, 7)), 2.0)


def test_tokens_of_a_handle_that_was_given_up_are_dropped(ledger: Ledger) -> None:
    ledger.disown(1)
    ledger.add(batch((1, 0, 7), (5, 3, 1), (2, 0, 8)), 2.0)
    assert ledger.received.tolist() == [0, 1, 0]
