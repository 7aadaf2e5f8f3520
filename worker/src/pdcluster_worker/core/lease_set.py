"""The set of a link's uncommitted leases, summed up in a count and an xor so that both ends can compare it."""

from collections.abc import Iterable

from pdcluster_worker.core.ids import LeaseId
from pdcluster_worker.core.wire import Heartbeat

MASK = (1 << 64) - 1


def mix(lease: LeaseId) -> int:
    """Spread an id over 64 bits (the finaliser of SplitMix64), so that an xor tells sets apart."""
    value = (lease + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


class LeaseSet:
    """Insertion and removal keep the digest up to date."""

    def __init__(self) -> None:
        self._ids: dict[LeaseId, None] = {}
        self.xor = 0

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, lease: LeaseId) -> bool:
        return lease in self._ids

    def ids(self) -> Iterable[LeaseId]:
        return self._ids

    def add(self, lease: LeaseId) -> None:
        if lease not in self._ids:
            self._ids[lease] = None
            self.xor ^= mix(lease)

    def discard(self, lease: LeaseId) -> None:
        if lease in self._ids:
            del self._ids[lease]
            self.xor ^= mix(lease)

    def clear(self) -> None:
        self._ids.clear()
        self.xor = 0

    def equals(self, heartbeat: Heartbeat) -> bool:
        return heartbeat.lease_count == len(self._ids) and heartbeat.lease_xor == self.xor

    def heartbeat(self, full: bool) -> Heartbeat:
        return Heartbeat(
            lease_count=len(self._ids),
            lease_xor=self.xor,
            full=full,
            lease_ids=tuple(self._ids) if full else (),
        )
