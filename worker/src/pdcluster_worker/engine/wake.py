"""Words that wake the main thread, from other threads and from signals alike.

A pipe, because a queue of Python's may lose a wake-up when a signal handler puts into it what the same thread
waits for. The interpreter itself writes the signal's number into it, whatever thread the kernel interrupts.
"""

import enum
import os
import select
import signal
import time
from collections.abc import Container

LAST_SIGNAL = 64


class Word(enum.IntEnum):
    """As bytes in the pipe; those up to LAST_SIGNAL are the signals' own numbers."""

    SIGNAL = LAST_SIGNAL
    """One that `listen` was told of."""
    EXECUTOR = 65
    """Something has come from an executor while the main thread waits for it."""
    DRAINED = 66
    ENDED = 67
    """The engine thread's last turn is over."""


class Wake:
    """`put` is for every thread, the rest for the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)

    def listen(self, *signals: signal.Signals) -> None:
        """From now on each of these signals is a word, and does nothing else."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in signals:
            signal.signal(number, lambda *_: None)

    def put(self, word: Word) -> None:
        """Never waits. A full pipe holds thousands of words that nobody has read: one more tells nothing new."""
        try:
            os.write(self._writer, bytes([word]))
        except BlockingIOError:
            return

    def get(self, timeout: float | None = None) -> Word | None:
        """The next word; None when none comes within `timeout` seconds."""
        ready, _, _ = select.select([self._reader], [], [], timeout)
        return Word(max(os.read(self._reader, 1)[0], LAST_SIGNAL)) if ready else None

    def get_one_of(self, words: Container[Word], until: float) -> Word | None:
        """The next of `words` before `until` on the monotonic clock; others are passed over."""
        while (left := until - time.monotonic()) > 0:
            word = self.get(left)
            if word is not None and word in words:
                return word
        return None

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)
