"""A lone prefill core whose decode workers are played by the test, message by message."""

from core_requests import make_config
from core_worker import LoneWorker

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import CommitOut, Outbox, ReleaseOut, ReserveOut
from pdcluster_worker.core.ids import LeaseId, PeerId
from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.core.wire import RefuseReason, Role

D1, D2 = PeerId("d1"), PeerId("d2")


class PrefillWorker(LoneWorker):
    """`reserves`, `commits` and `releases` collect what was said to whom."""

    def __init__(self, *peers: PeerId, **config: object) -> None:
        super().__init__(make_config(Role.PREFILL, **config))
        self.reserves: list[tuple[PeerId, ReserveOut]] = []
        self.commits: list[tuple[PeerId, CommitOut]] = []
        self.releases: list[tuple[PeerId, ReleaseOut]] = []
        self.closed: list[tuple[PeerId, LeaseId]] = []
        self.transfers: list[TransferSpec] = []
        self.cancelled: list[int] = []
        self.next_lease = 0
        self.sequence = 0
        for peer in peers:
            self.link(peer)

    def keep(self, outbox: Outbox) -> None:
        super().keep(outbox)
        for peer, out in outbox.decodes.items():
            self.reserves.extend((peer, reserve) for reserve in out.reserves)
            self.commits.extend((peer, commit) for commit in out.commits)
            self.releases.extend((peer, release) for release in out.releases)
            self.closed.extend((peer, closed.lease) for closed in out.writes_closed)
        self.transfers.extend(outbox.transfers)
        for plan in outbox.plans:
            self.transfers.extend(plan.transfers)
        self.cancelled.extend(outbox.cancel_transfers)

    def link(self, peer: PeerId, blocks: int = 100, requests: int = 100, pool: int = 100) -> None:
        self.handle(events.DecodeLinked(peer=peer, pool_blocks=pool, ranks=1, lease_ttl=10.0))
        self.credit(peer, blocks, requests)

    def credit(self, peer: PeerId, blocks: int, requests: int = 100) -> None:
        self.sequence += 1
        self.handle(events.CreditsChanged(peer=peer, sequence=self.sequence, blocks=blocks, requests=requests))

    def granted(self, position: int = -1, matched: int = 0) -> events.Granted:
        """The answer to one of the reserves."""
        peer, reserve = self.reserves[position]
        self.next_lease += 1
        count = -(-reserve.tokens // self.config.block_size)
        return events.Granted(
            peer=peer,
            key=reserve.key,
            lease=LeaseId(self.next_lease),
            ttl=10.0,
            matched_blocks=matched,
            block_ids=tuple(range(count)),
        )

    def grant(self, position: int = -1, matched: int = 0) -> LeaseId:
        event = self.granted(position, matched)
        self.handle(event)
        return event.lease

    def refuse(self, reason: RefuseReason, position: int = -1) -> None:
        peer, reserve = self.reserves[position]
        self.handle(events.Refused(peer=peer, key=reserve.key, reason=reason))

    def transferred(self, ok: bool = True, position: int = -1, write_failed: bool = False) -> None:
        transfer = self.transfers[position].transfer_id
        self.handle(
            events.TransferFinished(transfer=transfer, rank=0, ok=ok, bytes=64, seconds=0.01, write_failed=write_failed)
        )

    def accept(self, position: int = -1) -> None:
        peer, commit = self.commits[position]
        self.handle(events.CommitAccepted(peer=peer, key=commit.request.key, lease=commit.lease))
