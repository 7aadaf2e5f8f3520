"""A decode worker's leases under every order of reserve, commit, release, expiry, death and late messages."""

from core_requests import make_config, make_request, prepared
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pdcluster_worker.core import events
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.effects import GrantOut, Outbox
from pdcluster_worker.core.ids import LeaseId, PeerId, RequestKey
from pdcluster_worker.core.request import OutputToken, Request
from pdcluster_worker.core.wire import Heartbeat, RefuseReason, Role

PEERS = [PeerId("p1"), PeerId("p2")]
BLOCKS = 16

keys = st.integers(1, 4)
epochs = st.integers(1, 3)
peers = st.sampled_from(PEERS)


class LeaseMachine(RuleBasedStateMachine):
    """The model: which grants were heard, which of them may still be written to, which were promised closed."""

    @initialize()
    def make(self) -> None:
        self.now = 50.0
        self.core = Core(make_config(Role.DECODE, num_blocks=BLOCKS), self.now)
        self.grants: dict[LeaseId, GrantOut] = {}
        self.peer_of: dict[LeaseId, PeerId] = {}
        self.may_write: set[LeaseId] = set()
        self.dead: set[PeerId] = set()
        self.fences: list[int] = []
        self.fence_of: dict[PeerId, int] = {}
        self.fence_of_lease: dict[LeaseId, int] = {}
        self.committed: set[LeaseId] = set()
        self.ended: set[LeaseId] = set()
        self.last_outbox = Outbox()
        for peer in PEERS:
            self.handle(events.PrefillLinked(peer=peer))

    def handle(self, event: events.Event) -> Outbox:
        self.core.handle(event, self.now)
        return self.take()

    def take(self) -> Outbox:
        outbox = self.core.take(self.now)
        for peer, out in outbox.prefills.items():
            for grant in out.grants:
                assert grant.lease not in self.ended, "a lease came back"
                self.grants[grant.lease] = grant
                self.peer_of[grant.lease] = peer
                self.may_write.add(grant.lease)
            for lost in out.leases_lost:
                self.ended.add(lost.lease)
        self.fences.extend(outbox.fences)
        return outbox

    def request(self, number: int, epoch: int) -> Request:
        return make_request(number, 2 + 3 * number, epoch=epoch, max_tokens=2)

    @rule(peer=peers, number=keys, epoch=epochs, queue=st.booleans())
    def reserve(self, peer: PeerId, number: int, epoch: int, queue: bool) -> None:
        request = self.request(number, epoch)
        blocks = -(-request.num_tokens // 4)
        event = events.ReserveAsked(
            peer=peer,
            key=request.key,
            tokens=request.num_tokens,
            blocks=blocks + 1,
            block_hashes=prepared(request).block_hashes,
            deadline=self.now + 100,
            queue=queue,
        )
        first = self.handle(event)
        again = self.handle(event)
        if peer in self.dead:
            assert peer not in first.prefills
            return
        grants = [
            grant.lease for out in (first, again) for grant in out.prefills[peer].grants if grant.key == request.key
        ]
        assert len(set(grants)) <= 1, "a duplicate got another lease"

    @rule(data=st.data(), ranks=st.integers(1, 2))
    @precondition(lambda self: self.grants)
    def commit(self, data: st.DataObject, ranks: int) -> None:
        lease = data.draw(st.sampled_from(sorted(self.grants)))
        grant, peer = self.grants[lease], self.peer_of[lease]
        number = int.from_bytes(grant.key.request_id, "little")
        request = self.request(number, grant.key.epoch)
        self.may_write.discard(lease)
        outbox = self.handle(
            events.CommitAsked(
                peer=peer, lease=lease, request=request, outputs=(OutputToken(0, 7),), completed_ranks=ranks
            )
        )
        if peer in self.dead:
            return
        out = outbox.prefills[peer]
        accepted = [committed.lease for committed in out.committed]
        refused = [refusal for refusal in out.refusals if refusal.lease == lease]
        assert accepted == [lease] or refused, "a commit without an answer"
        if lease in self.ended:
            assert refused[0].reason is RefuseReason.UNKNOWN_LEASE
        if accepted:
            self.committed.add(lease)
        else:
            self.ended.add(lease)

    @rule(data=st.data(), closed=st.booleans(), aborted=st.booleans(), failed=st.booleans())
    @precondition(lambda self: self.grants)
    def release(self, data: st.DataObject, closed: bool, aborted: bool, failed: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.grants)))
        if closed and not failed:
            self.may_write.discard(lease)
        event = events.Released(
            peer=self.peer_of[lease],
            key=self.grants[lease].key,
            lease=lease,
            writes_closed=closed,
            aborted=aborted,
            write_failed=failed,
        )
        self.note_fence(lease, self.handle(event))
        if lease not in self.committed:
            self.ended.add(lease)

    @rule(peer=peers, number=keys, epoch=epochs)
    def withdraw(self, peer: PeerId, number: int, epoch: int) -> None:
        key = RequestKey(self.request(number, epoch).request_id, epoch)
        self.handle(events.Released(peer=peer, key=key, lease=LeaseId(0)))

    @rule(data=st.data(), failed=st.booleans())
    @precondition(lambda self: self.grants)
    def close_writes(self, data: st.DataObject, failed: bool) -> None:
        lease = data.draw(st.sampled_from(sorted(self.grants)))
        if lease not in self.committed:
            self.ended.add(lease)
        if not failed:
            self.may_write.discard(lease)
        event = events.WritesClosed(peer=self.peer_of[lease], lease=lease, epoch=1, write_failed=failed)
        self.note_fence(lease, self.handle(event))

    def note_fence(self, lease: LeaseId, outbox: Outbox) -> None:
        """What was still on its way to the lease's blocks has landed when this fence has drained."""
        for fence in outbox.fences:
            self.fence_of_lease[lease] = fence

    @rule(peer=peers, data=st.data())
    def heartbeat(self, peer: PeerId, data: st.DataObject) -> None:
        mine = sorted(lease for lease, owner in self.peer_of.items() if owner == peer)
        listed = tuple(data.draw(st.lists(st.sampled_from(mine), unique=True))) if mine else ()
        beat = Heartbeat(lease_count=len(listed), full=True, lease_ids=listed)
        self.handle(events.PrefillHeartbeat(peer=peer, heartbeat=beat))

    @rule(peer=peers)
    def die(self, peer: PeerId) -> None:
        self.dead.add(peer)
        outbox = self.handle(events.PrefillDied(peer=peer))
        assert len(outbox.fences) <= 1
        for fence in outbox.fences:
            self.fence_of[peer] = fence

    @rule(which=st.integers(0, 3))
    @precondition(lambda self: self.fences)
    def fence_drained(self, which: int) -> None:
        fence = self.fences.pop(min(which, len(self.fences) - 1))
        self.handle(events.FenceDrained(fence=fence))
        self.may_write -= {lease for lease, owner in self.peer_of.items() if self.fence_of.get(owner, 999) <= fence}
        self.may_write -= {lease for lease, last in self.fence_of_lease.items() if last <= fence}

    @rule(seconds=st.floats(0.1, 15))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.take()

    @rule()
    def finish_steps(self) -> None:
        for issued in list(self.core._role.scheduler.outstanding):
            slots = [0] * len(issued.sampling)
            sampled = events.SampledTokens(slots=slots, tokens=[1] * len(slots))
            self.handle(events.StepDone(plan=issued.plan_id, sampled=sampled, seconds=0.01))

    @invariant()
    def nothing_writable_is_reused(self) -> None:
        """Blocks that a sender may still write are neither free nor anybody else's."""
        self.core.check_integrity()
        for lease in self.may_write - self.committed:
            grant = self.grants[lease]
            for block in grant.block_ids[grant.matched_blocks :]:
                assert self.core.may_be_written(block), f"block {block} of lease {lease} is open to others"

    @invariant()
    def books_balance(self) -> None:
        snapshot = self.core.snapshot()
        assert sum(snapshot.blocks.values()) == BLOCKS
        if not snapshot.leases["live"]:
            assert snapshot.blocks["leased"] == 0
        if not snapshot.leases["quarantined"]:
            assert snapshot.blocks["quarantined"] == 0

    def teardown(self) -> None:
        """With the inputs stopped, everything drains to empty."""
        if not hasattr(self, "core"):
            return
        released: set[LeaseId] = set()
        while rest := sorted(set(self.grants) - released):
            lease = rest[0]
            released.add(lease)
            self.handle(
                events.Released(
                    peer=self.peer_of[lease],
                    key=self.grants[lease].key,
                    lease=lease,
                    writes_closed=True,
                    aborted=True,
                )
            )
        for peer in PEERS:
            self.handle(events.PrefillDied(peer=peer))
        for fence in self.fences:
            self.handle(events.FenceDrained(fence=fence))
        for _ in range(3):
            self.finish_steps()
        self.now += 1000
        self.take()
        self.core.check_integrity()
        assert self.core.is_empty()
        blocks = self.core.snapshot().blocks
        assert blocks["free"] + blocks["prefix"] == BLOCKS


TestLeases = LeaseMachine.TestCase
TestLeases.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
