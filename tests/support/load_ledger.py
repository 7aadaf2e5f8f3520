"""What a load driver remembers of its requests: times and counts in columns, so that a token costs no object.

One row per request. The driver's loop is the only writer. Times are seconds of `time.monotonic`.
"""

import numpy as np
import numpy.typing as npt

from pdcluster_proto.v1.request_pb2 import TokenBatch

Column = npt.NDArray[np.float64]


class LedgerError(AssertionError):
    """A worker broke the order of a request's tokens."""


class Ledger:
    """`keep_tokens` stores every token: needed to resubmit a request, and costly at high rates."""

    def __init__(self, requests: int, handles: int, keep_tokens: bool) -> None:
        self.submitted: Column = np.full(requests, np.nan)
        self.reserved: Column = np.full(requests, np.nan)
        self.first_token: Column = np.full(requests, np.nan)
        self.last_token: Column = np.full(requests, np.nan)
        self.finished: Column = np.full(requests, np.nan)
        self.received = np.zeros(requests, np.int64)
        self.decoded_by = np.full(requests, -1, np.int64)
        """Index of the worker that sent Finished."""
        self.failures: dict[int, str] = {}
        self.resubmissions = 0
        self.tokens: list[list[int]] | None = [[] for _ in range(requests)] if keep_tokens else None
        self._owners = np.full(handles, -1, np.int64)
        self._gaps: list[Column] = []

    def own(self, handle: int, request: int) -> None:
        self._owners[handle] = request

    def disown(self, handle: int) -> None:
        """Tokens for this handle are late from now on, and dropped."""
        self._owners[handle] = -1

    def owner(self, handle: int) -> int:
        """The request of a live handle, else -1."""
        return int(self._owners[handle])

    def add(self, batch: TokenBatch, now: float) -> None:
        """Take in tokens; those received before are dropped. Raises LedgerError when one is missing before another."""
        requests = self._owners[np.array(batch.handles[:], np.int64)]
        indices = np.array(batch.indices[:], np.int64)
        if self.tokens is not None or len(np.unique(requests)) < len(requests):
            self._add_one_by_one(requests, indices, batch.tokens[:], now)
            return
        alive = (requests >= 0) & (indices >= self.received[requests])
        rows = requests[alive]
        if not np.array_equal(indices[alive], self.received[rows]):
            raise LedgerError("a token came before the one that precedes it")
        self._time(rows, now)
        self.received[rows] += 1

    def gaps(self) -> Column:
        """Seconds between neighbouring tokens, of all requests."""
        return np.concatenate(self._gaps) if self._gaps else np.empty(0)

    def times_to_first_token(self) -> Column:
        return self.first_token - self.submitted

    def makespan(self) -> float:
        """From the first submission to the last end."""
        return float(np.nanmax(self.finished) - np.nanmin(self.submitted))

    @property
    def completed(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.finished)))

    def _add_one_by_one(
        self, requests: npt.NDArray[np.int64], indices: npt.NDArray[np.int64], tokens: list[int], now: float
    ) -> None:
        rows = []
        for request, index, token in zip(requests.tolist(), indices.tolist(), tokens, strict=True):
            if request < 0 or index < self.received[request]:
                continue
            if index > self.received[request]:
                raise LedgerError(f"request {request}: token {index} came before token {self.received[request]}")
            rows.append(request)
            self.received[request] += 1
            if self.tokens is not None:
                self.tokens[request].append(token)
        self._time(np.array(rows, np.int64), now)

    def _time(self, rows: npt.NDArray[np.int64], now: float) -> None:
        """Call before or after `received` moves: only the times say which token is a request's first."""
        last = self.last_token[rows]
        first = np.isnan(last)
        self.first_token[rows[first]] = now
        self._gaps.append(now - last[~first])
        self.last_token[rows] = now
