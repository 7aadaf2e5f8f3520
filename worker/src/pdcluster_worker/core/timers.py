"""Deadlines, one per owner, in buckets of 50 ms: setting and cancelling cost the same however many there are.

A heap of single timers would keep each ended request until its deadline, ten minutes later.
"""

import heapq
import math
from collections.abc import Hashable
from typing import Generic, TypeVar

OwnerT = TypeVar("OwnerT", bound=Hashable)

BUCKETS_PER_SECOND = 20


class Timers(Generic[OwnerT]):
    """Never early, at most one bucket late."""

    def __init__(self) -> None:
        self._bucket_of: dict[OwnerT, int] = {}
        self._owners: dict[int, dict[OwnerT, None]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._bucket_of)

    def __contains__(self, owner: OwnerT) -> bool:
        return owner in self._bucket_of

    def set(self, owner: OwnerT, when: float) -> None:
        """Replaces the owner's timer, if it has one."""
        bucket = math.ceil(when * BUCKETS_PER_SECOND)
        before = self._bucket_of.get(owner)
        if before == bucket:
            return
        if before is not None:
            self._owners[before].pop(owner)
        self._bucket_of[owner] = bucket
        owners = self._owners.get(bucket)
        if owners is None:
            owners = self._owners[bucket] = {}
            heapq.heappush(self._order, bucket)
        owners[owner] = None

    def cancel(self, owner: OwnerT) -> None:
        bucket = self._bucket_of.pop(owner, None)
        if bucket is not None:
            del self._owners[bucket][owner]

    def due(self, now: float) -> list[OwnerT]:
        """Take out every owner whose time has come, earliest bucket first."""
        owners: list[OwnerT] = []
        while self._order and self._order[0] <= now * BUCKETS_PER_SECOND:
            for owner in self._owners.pop(heapq.heappop(self._order)):
                del self._bucket_of[owner]
                owners.append(owner)
        return owners

    def next(self) -> float | None:
        """When `due` will have something, if anything is set."""
        while self._order and not self._owners[self._order[0]]:
            del self._owners[heapq.heappop(self._order)]
        return self._order[0] / BUCKETS_PER_SECOND if self._order else None
