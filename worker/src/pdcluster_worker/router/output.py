"""The text of one choice, grown token by token: UTF-8 across tokens, stop strings, end tokens. Pure.

Every token gives exactly one piece of text, perhaps empty; what is held back comes with a later token or with `flush`.
"""

import codecs
from collections.abc import Sequence

from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.models.tokenizer import Tokenizer
from pdcluster_worker.router.stop_strings import StopStrings

_decoder = codecs.getincrementaldecoder("utf-8")


class Output:
    def __init__(self, tokenizer: Tokenizer, sampling: SamplingParams, stop: Sequence[str]) -> None:
        self._pieces = tokenizer.pieces
        self._end_tokens = frozenset(sampling.stop_token_ids)
        self._min_tokens = sampling.min_tokens
        self._decoder = _decoder(errors="replace")
        self._stops = StopStrings(stop)
        self.count = 0
        self.stopped = False
        """A stop string is complete: the choice has ended, whatever the worker does."""

    def push(self, token: int) -> str:
        """The text to show because of this token."""
        self.count += 1
        if token in self._end_tokens and self.count > self._min_tokens:
            return ""
        piece = self._pieces[token] if token < len(self._pieces) else b""
        text = self._decoder.decode(piece)
        if self.count <= self._min_tokens:
            return text
        shown, self.stopped = self._stops.push(text)
        return shown

    def flush(self) -> str:
        """The choice ended without a stop string: everything that was held back."""
        if self.stopped:
            return ""
        text, _ = self._stops.push(self._decoder.decode(b"", final=True))
        return text + self._stops.flush()
