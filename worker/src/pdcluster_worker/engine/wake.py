"""Words that wake the main thread, from other threads and from signal handlers alike.

A pipe, because a queue of Python's may lose a wake-up when a signal handler puts into it what the same thread
waits for.
"""

import enum
import os
import select
import time
from collections.abc import Container


class Word(enum.IntEnum):
    SIGNAL = 1
    """SIGTERM or SIGINT."""
    EXECUTOR = 2
    """Something has come from an executor while the main thread waits for it."""
    DRAINED = 3
    ENDED = 4
    """The engine thread's last turn is over."""


class Wake:
    """`put` is for everybody, `get` for the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)

    def put(self, word: Word) -> None:
        """Never waits. A full pipe holds thousands of words that nobody has read: one more tells nothing new."""
        try:
            os.write(self._writer, bytes([word]))
        except BlockingIOError:
            return

    def get(self, timeout: float | None = None) -> Word | None:
        """The next word; None when none comes within `timeout` seconds."""
        ready, _, _ = select.select([self._reader], [], [], timeout)
        return Word(os.read(self._reader, 1)[0]) if ready else None

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
