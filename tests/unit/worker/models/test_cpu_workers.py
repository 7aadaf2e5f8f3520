import threading
from collections.abc import Iterator

import numpy as np
import pytest

from pdcluster_worker.models.cpu_workers import TILE_ELEMENTS, Scratch, Workers


@pytest.fixture(params=[1, 3], ids=lambda threads: f"{threads} threads")
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    made = Workers(request.param)
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cpu-step")]


def test_every_task_runs_once(workers: Workers) -> None:
    done: list[int] = []
    workers.run([lambda scratch, number=number: done.append(number) for number in range(50)])  # type: ignore[misc]
    assert sorted(done) == list(range(50))
    workers.run([])


@pytest.mark.parametrize("total", [1, 7, 5000])
def test_tiles_cover_every_row_once(workers: Workers, total: int) -> None:
    width = TILE_ELEMENTS // 64
    counts = np.zeros(total, np.int64)

    def tile(start: int, stop: int, scratch: Scratch) -> None:
        counts[start:stop] += 1

    workers.rows(total, width, tile)
    assert (counts == 1).all()


def test_a_tasks_error_comes_out_and_the_next_run_works(workers: Workers) -> None:
    def fail(scratch: Scratch) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        workers.run([fail, fail, fail])
    done: list[int] = []
    workers.run([lambda scratch: done.append(1)] * 4)
    assert done == [1] * 4


def test_tasks_of_one_thread_share_scratch_and_threads_do_not(workers: Workers) -> None:
    meet = threading.Barrier(workers.threads)
    seen: list[int] = []

    def task(scratch: Scratch) -> None:
        meet.wait(10)
        seen.append(id(scratch))

    workers.run([task] * workers.threads)
    assert len(set(seen)) == workers.threads


def test_scratch_grows_and_is_used_again() -> None:
    scratch = Scratch()
    large = scratch.array("x", (10, 10))
    small = scratch.array("x", (3, 4))
    assert small.shape == (3, 4)
    assert np.shares_memory(large, small)
    assert not np.shares_memory(large, scratch.array("y", (3,)))
    assert scratch.array("x", (20, 20)).size == 400
