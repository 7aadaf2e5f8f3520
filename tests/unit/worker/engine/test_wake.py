import signal
import threading
import time
from collections.abc import Iterator

import pytest

from pdcluster_worker.engine.wake import Wake, Word


@pytest.fixture
def wake() -> Iterator[Wake]:
    pipe = Wake()
    yield pipe
    pipe.close()


def test_words_come_in_order_and_none_when_there_is_none(wake: Wake) -> None:
    wake.put(Word.DRAINED)
    wake.put(Word.ENDED)
    assert wake.get(0) is Word.DRAINED
    assert wake.get(0) is Word.ENDED
    assert wake.get(0) is None


def test_other_words_are_passed_over(wake: Wake) -> None:
    for word in (Word.SIGNAL, Word.EXECUTOR, Word.ENDED):
        wake.put(word)
    assert wake.get_one_of({Word.ENDED}, time.monotonic() + 5) is Word.ENDED
    wake.put(Word.SIGNAL)
    assert wake.get_one_of({Word.ENDED}, time.monotonic() - 1) is None


@pytest.fixture
def listening(wake: Wake) -> Iterator[Wake]:
    before = signal.getsignal(signal.SIGUSR1)
    wake.listen(signal.SIGUSR1)
    yield wake
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_wakes_the_thread_that_waits_whatever_thread_it_interrupts(listening: Wake) -> None:
    shot = threading.Timer(0.01, signal.raise_signal, [signal.SIGUSR1])
    shot.start()
    assert listening.get(10) is Word.SIGNAL
    shot.join(10)


def test_a_burst_of_signals_loses_no_other_word(listening: Wake) -> None:
    for _ in range(20):
        signal.raise_signal(signal.SIGUSR1)
    listening.put(Word.ENDED)
    assert listening.get(0) is Word.SIGNAL
    assert listening.get_one_of({Word.ENDED}, time.monotonic() + 10) is Word.ENDED


def test_a_full_pipe_is_no_reason_to_wait(wake: Wake) -> None:
    for _ in range(100_000):
        wake.put(Word.SIGNAL)
    assert wake.get(0) is Word.SIGNAL
