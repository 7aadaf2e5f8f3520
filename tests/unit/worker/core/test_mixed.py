"""The mixed role from submission to the last token."""

import pytest
from core_executor import sampled_token
from core_requests import expected_tokens, make_config, make_request
from core_worker import LoneWorker

from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.wire import FailureCode


def test_one_request_end_to_end() -> None:
    worker = LoneWorker(make_config())
    request = make_request(1, 6)
    worker.submit(request, 1)
    worker.run()
    assert worker.tokens[1] == expected_tokens(request)
    note = worker.notes[1]
    assert isinstance(note, FinishedNote)
    assert (note.reason, note.output_tokens, note.stop_token) == ("length", 5, None)
    worker.check_empty()


@pytest.mark.parametrize("plans", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 3, 16, 64])
@pytest.mark.parametrize("blocks", [16, 24, 64])
def test_many_requests_stream_the_same_tokens(plans: int, budget: int, blocks: int) -> None:
    config = make_config(max_batch_tokens=budget, plans_in_flight=plans, num_blocks=blocks)
    worker = LoneWorker(config)
    requests = [make_request(number, 3 + number % 17, max_tokens=1 + number % 20) for number in range(1, 20)]
    for request in requests:
        worker.submit(request, int.from_bytes(request.request_id, "little"))
    worker.run(5000)
    for number, request in enumerate(requests, 1):
        assert worker.tokens[number] == expected_tokens(request)
        assert isinstance(worker.notes[number], FinishedNote)
    assert max(worker.executor.batch_sizes) <= budget
    worker.check_empty()


def test_stop_token_ends_and_is_told() -> None:
    worker = LoneWorker(make_config())
    request = make_request(3, 6, max_tokens=20, stop_token_ids=(sampled_token(3, 4),))
    worker.submit(request, 1)
    worker.run()
    assert worker.tokens[1] == [sampled_token(3, index) for index in range(5)]
    note = worker.notes[1]
    assert isinstance(note, FinishedNote)
    assert (note.reason, note.stop_token, note.output_tokens) == ("stop", sampled_token(3, 4), 5)
    worker.check_empty()


def test_min_tokens_and_ignore_eos_put_stop_tokens_off() -> None:
    worker = LoneWorker(make_config())
    stop = (sampled_token(3, 1),)
    worker.submit(make_request(3, 6, max_tokens=6, min_tokens=2, stop_token_ids=stop), 1)
    worker.submit(make_request(4, 6, seed=3, max_tokens=6, ignore_eos=True, stop_token_ids=stop), 2)
    worker.run()
    assert len(worker.tokens[1]) == len(worker.tokens[2]) == 6
    worker.check_empty()


def test_a_resubmitted_request_continues_where_it_was() -> None:
    worker = LoneWorker(make_config())
    worker.tokens[1] = [sampled_token(5, index) for index in range(3)]
    request = make_request(5, 6, epoch=2, output=3, max_tokens=8)
    worker.submit(request, 1)
    worker.run()
    assert worker.tokens[1] == expected_tokens(request)
    note = worker.notes[1]
    assert isinstance(note, FinishedNote)
    assert note.output_tokens == 8
    worker.check_empty()


@pytest.mark.parametrize("stop", [False, True])
def test_a_resubmitted_request_that_is_complete_ends_at_once(stop: bool) -> None:
    worker = LoneWorker(make_config())
    options = {"stop_token_ids": (sampled_token(5, 2),), "max_tokens": 9} if stop else {"max_tokens": 3}
    worker.submit(make_request(5, 6, epoch=2, output=3, **options), 1)
    assert not worker.plans
    note = worker.notes[1]
    assert isinstance(note, FinishedNote)
    assert (note.reason, note.output_tokens) == ("stop" if stop else "length", 3)
    worker.check_empty()


def test_prefix_cache_saves_all_but_the_last_block() -> None:
    worker = LoneWorker(make_config())
    prompt = list(range(100, 112))
    for handle in (1, 2):
        worker.submit(make_request(handle, prompt), handle)
        worker.run()
    first, second = worker.notes[1], worker.notes[2]
    assert isinstance(first, FinishedNote)
    assert isinstance(second, FinishedNote)
    assert (first.stages.cached_tokens, second.stages.cached_tokens) == (0, 8)
    worker.check_empty()


def test_too_large_requests_name_the_limit() -> None:
    worker = LoneWorker(make_config(num_blocks=4, max_model_length=64))
    worker.submit(make_request(1, 64), 1)
    worker.submit(make_request(2, 17), 2)
    for handle, limit in ((1, "64"), (2, "16")):
        note = worker.notes[handle]
        assert isinstance(note, FailedNote)
        assert note.code.name == "INVALID_ARGUMENT"
        assert limit in note.reason
    worker.check_empty()


@pytest.mark.parametrize("index", [0, 3])
def test_logits_that_are_no_numbers_fail_their_own_request_alone(index: int) -> None:
    worker = LoneWorker(make_config())
    worker.executor.broken.add((4, index))
    healthy = make_request(3, 6, max_tokens=8)
    worker.submit(healthy, 1)
    worker.submit(make_request(4, 6, max_tokens=8), 2)
    worker.run()
    assert worker.tokens[1] == expected_tokens(healthy)
    note = worker.notes[2]
    assert isinstance(note, FailedNote)
    assert note.code is FailureCode.INTERNAL
    assert "not finite" in note.reason
    worker.check_empty()
