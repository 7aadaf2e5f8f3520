"""A lone decode core whose prefill workers are played by the test, message by message."""

from core_executor import chain, unpack
from core_requests import make_config, prepared
from core_worker import LoneWorker

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import GrantOut, LeaseLostOut, Outbox, RefuseOut
from pdcluster_worker.core.ids import LeaseId, PeerId
from pdcluster_worker.core.request import OutputToken, Request
from pdcluster_worker.core.wire import Heartbeat, Role

P1, P2 = PeerId("p1"), PeerId("p2")


class DecodeWorker(LoneWorker):
    """Collects what was said to the prefill workers."""

    def __init__(self, *peers: PeerId, **config: object) -> None:
        super().__init__(make_config(Role.DECODE, **config))
        self.grants: list[GrantOut] = []
        self.refusals: list[RefuseOut] = []
        self.queued: list[bytes] = []
        self.committed: list[LeaseId] = []
        self.lost: list[LeaseLostOut] = []
        self.fences: list[int] = []
        for peer in peers or (P1,):
            self.handle(events.PrefillLinked(peer=peer))

    def keep(self, outbox: Outbox) -> None:
        super().keep(outbox)
        self.fences.extend(outbox.fences)
        for out in outbox.prefills.values():
            self.grants.extend(out.grants)
            self.refusals.extend(out.refusals)
            self.queued.extend(key.request_id for key in out.queued)
            self.committed.extend(committed.lease for committed in out.committed)
            self.lost.extend(out.leases_lost)

    def reserve(self, request: Request, peer: PeerId = P1, *, queue: bool = False, blocks: int = 0) -> None:
        needed = self.config.blocks_for(request.num_tokens) + 1
        self.handle(
            events.ReserveAsked(
                peer=peer,
                key=request.key,
                tokens=request.num_tokens,
                blocks=blocks or needed,
                block_hashes=prepared(request, self.config.block_size).block_hashes,
                deadline=request.deadline,
                queue=queue,
            )
        )

    def commit(self, request: Request, first: int, peer: PeerId = P1, *, ranks: int = 1, lease: int = 0) -> None:
        """Write the KV into the leased blocks, then commit."""
        grants = [grant for grant in self.grants if grant.key == request.key]
        grant = grants[-1]
        self.write(request, grant)
        self.handle(
            events.CommitAsked(
                peer=peer,
                lease=LeaseId(lease or grant.lease),
                request=request,
                outputs=(OutputToken(request.num_tokens - request.prompt_length, first),),
                completed_ranks=ranks,
            )
        )

    def write(self, request: Request, grant: GrantOut) -> None:
        value = 0
        for position, token in enumerate(unpack(request.tokens)):
            value = chain(value, token)
            block = grant.block_ids[position // self.config.block_size]
            if position // self.config.block_size >= grant.matched_blocks:
                self.executor.memory[block][position % self.config.block_size] = value

    def beat(self, seconds: float, peer: PeerId = P1) -> None:
        """Let time pass while the peer's heartbeats agree."""
        for _ in range(int(seconds)):
            self.pass_time(1.0)
            mine = self.core.lease_set(peer)
            beat = Heartbeat(lease_count=mine.lease_count, lease_xor=mine.lease_xor)
            self.handle(events.PrefillHeartbeat(peer=peer, heartbeat=beat))
