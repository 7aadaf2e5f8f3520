"""The leases that a decode worker has given: blocks that a prefill worker may write. The decode role is the writer.

A lease is live until it is committed or ended. An ended one whose sender has not said that all its writes are
final is quarantined: nothing can revoke a peer's access to memory, so its blocks are freed only by the sender's
word, or by a fence that was asked for after its death, or after its word that a write had failed.
"""

from collections.abc import Iterator

from pdcluster_worker.core.blocks import BlockPool, Holder
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestId, RequestKey
from pdcluster_worker.core.lease_set import LeaseSet


class Lease:
    """`matched` blocks were here already and are only read; `blocks` follow them and may be written."""

    __slots__ = (
        "blocks",
        "fence",
        "granted_at",
        "hashes",
        "key",
        "lease_id",
        "live",
        "matched",
        "peer",
        "tokens",
        "writes_closed",
    )

    def __init__(
        self,
        lease_id: LeaseId,
        key: RequestKey,
        peer: PeerId,
        tokens: int,
        hashes: bytes,
        matched: list[int],
        blocks: list[int],
        now: float,
    ) -> None:
        self.lease_id = lease_id
        self.key = key
        self.peer = peer
        self.tokens = tokens
        self.hashes = hashes
        self.matched = matched
        self.blocks = blocks
        self.granted_at = now
        self.live = True
        self.writes_closed = False
        self.fence = 0
        """The fence that will free it, once its sender is known to be dead."""


class LeaseTable:
    """At most one live lease per request id. `live_count` and `quarantined_count` are kept, not counted."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._leases: dict[LeaseId, Lease] = {}
        self._by_request: dict[RequestId, Lease] = {}
        self._sets: dict[PeerId, LeaseSet] = {}
        self._last_id = 0
        self.live_count = 0

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def quarantined_count(self) -> int:
        return len(self._leases) - self.live_count

    def get(self, lease_id: LeaseId) -> Lease | None:
        return self._leases.get(lease_id)

    def live(self, request_id: RequestId) -> Lease | None:
        return self._by_request.get(request_id)

    def all_live(self) -> list[Lease]:
        return list(self._by_request.values())

    def of_peer(self, peer: PeerId) -> Iterator[Lease]:
        """All of the peer's leases, quarantined ones included; they may be ended while iterating."""
        leases = self._sets.get(peer)
        for lease_id in list(leases.ids()) if leases is not None else ():
            yield self._leases[lease_id]

    def set_of(self, peer: PeerId) -> LeaseSet:
        """Live and quarantined leases of the peer: what its WritesClosed is still awaited for."""
        return self._sets.setdefault(peer, LeaseSet())

    def next_id(self) -> LeaseId:
        self._last_id += 1
        return LeaseId(self._last_id)

    def add(self, lease: Lease) -> None:
        """A new lease with an id from `next_id`; its blocks are held as leased already."""
        self._leases[lease.lease_id] = lease
        self._by_request[lease.key.request_id] = lease
        self.set_of(lease.peer).add(lease.lease_id)
        self.live_count += 1

    def commit(self, lease: Lease) -> list[int]:
        """The KV is complete: the blocks, matched ones first, belong to the request from now on."""
        self._pool.convert_leased(len(lease.blocks), Holder.RUNNING)
        self._stop_living(lease)
        self._forget(lease)
        return lease.matched + lease.blocks

    def end(self, lease: Lease) -> None:
        """The request will not come: free what nobody can write any more, quarantine the rest."""
        if not lease.live:
            return
        self._stop_living(lease)
        self._pool.release(lease.matched)
        if lease.writes_closed or not lease.blocks:
            self._pool.release(lease.blocks, holder=Holder.LEASED)
            self._forget(lease)
        else:
            self._pool.convert_leased(len(lease.blocks), Holder.QUARANTINED)

    def close_writes(self, lease: Lease) -> None:
        """The sender has no write outstanding and will post no more."""
        lease.writes_closed = True
        if not lease.live:
            self._pool.release(lease.blocks, holder=Holder.QUARANTINED)
            self._forget(lease)

    def owned_blocks(self) -> Iterator[list[int]]:
        """What each lease references."""
        for lease in self._leases.values():
            yield lease.blocks
            if lease.live:
                yield lease.matched

    def writable_blocks(self) -> Iterator[list[int]]:
        for lease in self._leases.values():
            yield lease.blocks

    def fence_drained(self, fence: int) -> None:
        """What had arrived before the fence has landed: leases that waited for it, or an earlier one, are freed."""
        for lease in list(self._leases.values()):
            if 0 < lease.fence <= fence and not lease.live:
                self.close_writes(lease)

    def memory_gone(self) -> None:
        """The executor, and the memory with it, is no more."""
        for lease in list(self._leases.values()):
            lease.writes_closed = True
            if lease.live:
                self.end(lease)
            else:
                self.close_writes(lease)

    def _stop_living(self, lease: Lease) -> None:
        lease.live = False
        self.live_count -= 1
        del self._by_request[lease.key.request_id]

    def _forget(self, lease: Lease) -> None:
        del self._leases[lease.lease_id]
        leases = self._sets[lease.peer]
        leases.discard(lease.lease_id)
        if not leases:
            del self._sets[lease.peer]
