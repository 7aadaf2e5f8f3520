"""A prefill worker's links to decode workers: credit, leases held, what was withdrawn. Written by the prefill role."""

import msgspec

from pdcluster_worker.core.config import CoreConfig
from pdcluster_worker.core.events import CreditsChanged
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestKey
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.lease_set import LeaseSet
from pdcluster_worker.core.recent import Recent
from pdcluster_worker.core.wire import Heartbeat

SLOW_ANSWER = 0.3
"""Seconds without an answer after which another decode worker is preferred."""
BLOCKED = 0.1
"""Seconds for which a decode worker that had no capacity is left alone, unless its credit changes."""


class DecodeLink:
    """Outlives a broken link, as its leases do. `ended` leases are never used again, whatever comes late."""

    def __init__(self, peer: PeerId, config: CoreConfig, now: float) -> None:
        self.peer = peer
        self._config = config
        self.linked = False
        self.pool_blocks = 0
        self.draining = False
        self.credit_blocks = 0
        self.credit_requests = 0
        self.credit_sequence = 0
        self.reserved_blocks = 0
        self.reserved_requests = 0
        self.leases = LeaseSet()
        """Granted to us, and not committed or closed yet."""
        self.jobs: dict[LeaseId, Job] = {}
        """The requests that still count on their lease here."""
        self.reserving: dict[RequestKey, Job] = {}
        self.withdrawn: Recent[RequestKey, bool] = Recent(2 * config.lease_ttl, now)
        """Reserves that we gave up and that have not been answered."""
        self.ended: Recent[LeaseId, bool] = Recent(2 * config.lease_ttl, now)
        self.last_heard = now
        self.last_granted = 0.0
        self.waiting_since = 0.0
        self.blocked_until = 0.0
        self.suspect = False
        """A Reserve timed out and nothing has been heard since."""
        self.send_full = True
        self.told_demand = False

    def open(self, pool_blocks: int, now: float) -> None:
        """A new handshake: credits count from nothing, no answer of the old link can come any more."""
        self.linked = True
        self.pool_blocks = pool_blocks
        self.draining = self.suspect = False
        self.credit_blocks = self.credit_requests = self.credit_sequence = 0
        self.reserved_blocks = self.reserved_requests = 0
        self.withdrawn = Recent(2 * self._config.lease_ttl, now)
        self.blocked_until = 0.0
        self.send_full = True
        self.told_demand = False
        self.last_heard = now

    def heard(self, now: float) -> None:
        self.last_heard = now
        self.suspect = False

    def fade(self, now: float) -> None:
        """Forget what is too old to matter."""
        self.withdrawn.expire(now)
        self.ended.expire(now)

    def answered(self, key: RequestKey, now: float) -> None:
        """A final answer to a Reserve."""
        self.heard(now)
        self.waiting_since = now
        self.reserving.pop(key, None)
        self.withdrawn.remove(key)

    def set_credits(self, event: CreditsChanged, now: float) -> None:
        self.heard(now)
        if event.sequence > self.credit_sequence:
            self.credit_sequence = event.sequence
            self.credit_blocks = event.blocks
            self.credit_requests = event.requests
            self.draining = event.draining
            self.blocked_until = 0.0

    def is_usable(self, now: float) -> bool:
        return (
            self.linked
            and not self.draining
            and not self.suspect
            and self.blocked_until <= now < self.last_heard + self._config.peer_silence
        )

    def is_slow(self, now: float) -> bool:
        return bool(self.reserving) and now - self.waiting_since > SLOW_ANSWER

    @property
    def free_blocks(self) -> int:
        """Credit left; none when there is no credit for one more request."""
        if self.credit_requests <= self.reserved_requests:
            return 0
        return max(self.credit_blocks - self.reserved_blocks, 0)

    def reserve(self, job: Job, on_credit: bool, now: float) -> None:
        if not self.reserving:
            self.waiting_since = now
        self.reserving[job.key] = job
        if on_credit:
            self.reserved_blocks += job.reserve_blocks
            self.reserved_requests += 1

    def heartbeat(self, demand_blocks: int, demand_requests: int) -> Heartbeat:
        heartbeat = self.leases.heartbeat(self.send_full)
        self.send_full = False
        self.told_demand = demand_requests > 0
        return msgspec.structs.replace(
            heartbeat,
            demand_blocks=demand_blocks,
            demand_requests=demand_requests,
            reserved_blocks=self.reserved_blocks,
            reserved_requests=self.reserved_requests,
        )

    def close_lease(self, lease: LeaseId) -> None:
        """Never to be used again."""
        self.leases.discard(lease)
        self.jobs.pop(lease, None)
        self.ended.put(lease, True)
