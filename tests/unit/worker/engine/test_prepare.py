"""The pool's promises, with its real threads; every wait is for an event of the pool, with a deadline."""

import queue
import threading

import pytest
from core_requests import make_request

from pdcluster_worker.core.events import Prepared, PrepareFailed
from pdcluster_worker.core.request import Request
from pdcluster_worker.engine.prepare import PreparePool
from pdcluster_worker.errors import ValidationError

WAIT = 10.0
FAR = 1e12
Result = Prepared | PrepareFailed


def request(number: int, deadline: float = FAR) -> Request:
    return make_request(number, deadline=deadline)


def test_results_come_with_hashes_and_time() -> None:
    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    pool = PreparePool(2, lambda _request: b"hashes", results.put)
    pool.submit(request(1))
    result = results.get(timeout=WAIT)
    assert isinstance(result, Prepared)
    assert result.block_hashes == b"hashes"
    assert result.seconds >= 0
    pool.close()


def test_a_broken_job_fails_its_request_only(capsys: pytest.CaptureFixture[str]) -> None:
    def prepare(job: Request) -> bytes:
        if job == request(1):
            raise ValidationError("prompt: too long", "prompt")
        if job == request(2):
            raise KeyError("bug")
        return b""

    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    pool = PreparePool(1, prepare, results.put)
    for number in (1, 2, 3):
        pool.submit(request(number))
    first, second, third = (results.get(timeout=WAIT) for _ in range(3))
    assert isinstance(first, PrepareFailed)
    assert first.reason == "prompt: too long"
    assert isinstance(second, PrepareFailed)
    assert second.key == request(2).key
    assert isinstance(third, Prepared)
    pool.close()
    capsys.readouterr()


def test_jobs_of_ended_requests_are_passed_over() -> None:
    gate, begun = threading.Event(), threading.Event()
    prepared: list[bytes] = []

    def prepare(job: Request) -> bytes:
        begun.set()
        gate.wait(WAIT)
        prepared.append(job.request_id)
        return b""

    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    pool = PreparePool(1, prepare, results.put)
    pool.submit(request(1))
    assert begun.wait(WAIT)
    pool.submit(request(2))
    pool.submit(request(3, deadline=0.0))
    pool.submit(request(4))
    pool.skip(request(2).key)
    gate.set()
    keys = [results.get(timeout=WAIT) for _ in range(2)]
    assert [key.request.key for key in keys if isinstance(key, Prepared)] == [request(1).key, request(4).key]
    pool.close()
    assert prepared == [request(1).request_id, request(4).request_id]


def test_all_threads_work_at_once() -> None:
    together = threading.Barrier(4)

    def prepare(_job: Request) -> bytes:
        together.wait(WAIT)
        return b""

    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    pool = PreparePool(4, prepare, results.put)
    for number in range(4):
        pool.submit(request(number))
    assert all(isinstance(results.get(timeout=WAIT), Prepared) for _ in range(4))
    pool.close()


def test_close_drops_what_has_not_begun_and_leaves_no_thread() -> None:
    gate, begun = threading.Event(), threading.Event()

    def prepare(_job: Request) -> bytes:
        begun.set()
        gate.wait(WAIT)
        return b""

    results: queue.SimpleQueue[Result] = queue.SimpleQueue()
    before = set(threading.enumerate())
    pool = PreparePool(1, prepare, results.put)
    for number in range(5):
        pool.submit(request(number))
    assert begun.wait(WAIT)
    closer = threading.Thread(target=pool.close)
    closer.start()
    gate.set()
    closer.join(WAIT)
    assert not closer.is_alive()
    assert not set(threading.enumerate()) - before
    assert isinstance(results.get(timeout=WAIT), Prepared)
    assert results.empty()
