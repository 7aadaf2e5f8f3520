"""One worker of the simulated cluster: a core, a fake executor, and KV writes that take their time.

Writes land even when their sender has died meanwhile; where they land is checked against what the receiving core says.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
from core_executor import FakeExecutor
from core_link import decode_events, prefill_events
from core_requests import prepared

from pdcluster_worker.core import events
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.ids import PeerId, StreamId
from pdcluster_worker.core.plan import StepPlan, TransferSpec
from pdcluster_worker.core.wire import Role

if TYPE_CHECKING:
    from core_cluster import Client, Cluster

STREAM = StreamId(1)


@dataclass
class RunningTransfer:
    spec: TransferSpec
    posted: int = 0
    landing: int = 0
    started: bool = False
    """Its plan runs, or it came without one."""
    cancelled: bool = False
    failed: bool = False


class Node:
    """One worker process."""

    def __init__(self, cluster: "Cluster", role: Role, peer: PeerId) -> None:
        self.cluster = cluster
        self.role = role
        self.peer = peer
        self.config = cluster.config_of(role)
        self.core = Core(self.config, cluster.now)
        self.executor = FakeExecutor(self.config.num_blocks, self.config.block_size)
        self.alive = True
        self.busy = False
        self.plans: list[StepPlan] = []
        self.transfers: dict[int, RunningTransfer] = {}
        self.handles: dict[int, tuple[Client, int]] = {}
        self.ended_handles: set[int] = set()
        self.wake_at: float | None = None
        self.core.handle(events.StreamOpened(stream=STREAM), cluster.now)

    def handle(self, event: events.Event) -> None:
        if self.alive:
            self.core.handle(event, self.cluster.now)
            self.act()

    def act(self) -> None:
        """Take the outbox and do what it says."""
        outbox = self.core.take(self.cluster.now)
        for request in outbox.prepare:
            done = prepared(request, self.config.block_size)
            self.cluster.later(0.001, lambda done=done: self.handle(done))
        for out in outbox.routers.values():
            self.cluster.hear(self, out)
        for transfer_id in outbox.cancel_transfers:
            self.cluster.later(0.001, lambda transfer_id=transfer_id: self.cancel(transfer_id))
        for spec in outbox.transfers:
            self.start_transfer(spec)
        for plan in outbox.plans:
            self.plans.append(plan)
            self.transfers.update({spec.transfer_id: RunningTransfer(spec) for spec in plan.transfers})
        self.run_plans()
        for peer, to_decode in outbox.decodes.items():
            self.cluster.send_all(self, peer, prefill_events(self.peer, to_decode))
        for peer, to_prefill in outbox.prefills.items():
            self.cluster.send_all(self, peer, decode_events(self.peer, to_prefill))
        for fence in outbox.fences:
            self.cluster.later(
                5 * self.cluster.network.write_delay, lambda fence=fence: self.handle(events.FenceDrained(fence=fence))
            )
        self.schedule_wake()

    def schedule_wake(self) -> None:
        deadline = self.core.next_deadline()
        if deadline is not None and deadline != self.wake_at:
            self.wake_at = deadline
            self.cluster.at(max(deadline, self.cluster.now), lambda: self.wake(deadline))

    def wake(self, deadline: float) -> None:
        if self.alive and self.wake_at == deadline:
            self.wake_at = None
            self.act()

    # --- executor -----------------------------------------------------------------------------------

    def run_plans(self) -> None:
        """A plan begins: as in an executor, what its transfers say is computed is sent before the step computes."""
        if self.plans and not self.busy and self.alive:
            self.busy = True
            for spec in self.plans[0].transfers:
                if spec.transfer_id in self.transfers:
                    self.transfers[spec.transfer_id].started = True
                    self.post(self.transfers[spec.transfer_id], None)
            self.cluster.later(0.005, self.finish_plan)

    def finish_plan(self) -> None:
        if not self.alive:
            return
        plan = self.plans.pop(0)
        done = self.executor.run(plan)
        self.busy = False
        for transfer in list(self.transfers.values()):
            self.post(transfer, plan)
        self.handle(done)
        self.run_plans()

    def start_transfer(self, spec: TransferSpec) -> None:
        transfer = self.transfers[spec.transfer_id] = RunningTransfer(spec, started=True)
        assert spec.slot == -1
        assert spec.computed_tokens == spec.tokens
        self.post(transfer, None)

    def cancel(self, transfer_id: int) -> None:
        transfer = self.transfers.get(transfer_id)
        if transfer is not None:
            transfer.cancelled = True
            self.finish_transfer(transfer)

    def post(self, transfer: RunningTransfer, plan: StepPlan | None) -> None:
        """Write the blocks that are complete by now."""
        if not transfer.started:
            return
        spec = transfer.spec
        computed = spec.computed_tokens
        if plan is not None and spec.slot in plan.slots:
            entry = plan.slots.index(spec.slot)
            computed = min(plan.starts[entry] + plan.counts[entry], spec.tokens)
            transfer.spec = spec = msgspec.structs.replace(spec, computed_tokens=computed)
        if computed >= spec.tokens:
            transfer.spec = spec = msgspec.structs.replace(spec, slot=-1)
        size = self.config.block_size
        while transfer.posted < len(spec.local_blocks) and not transfer.cancelled:
            end = min((spec.first_block + transfer.posted + 1) * size, spec.tokens)
            if end > computed:
                break
            local, remote = spec.local_blocks[transfer.posted], spec.remote_blocks[transfer.posted]
            transfer.posted += 1
            transfer.landing += 1
            content = self.executor.read(local)
            delay = self.cluster.network.write_delay * self.cluster.random.uniform(0.5, 4)
            self.cluster.later(
                delay, lambda remote=remote, content=content: self.land(transfer, PeerId(spec.peer), remote, content)
            )
        self.finish_transfer(transfer)

    def land(self, transfer: RunningTransfer, peer: PeerId, block: int, content: list[int]) -> None:
        """A write reaches the peer's memory, whether its sender lives or not."""
        transfer.landing -= 1
        receiver = self.cluster.nodes.get(peer)
        if receiver is None or not receiver.alive:
            transfer.failed = True
        else:
            assert receiver.core.may_be_written(block), "a write landed outside any lease"
            receiver.executor.write(block, content)
        self.finish_transfer(transfer)

    def finish_transfer(self, transfer: RunningTransfer) -> None:
        spec = transfer.spec
        complete = transfer.posted == len(spec.local_blocks)
        if transfer.landing or not (complete or transfer.cancelled) or spec.transfer_id not in self.transfers:
            return
        del self.transfers[spec.transfer_id]
        failed = transfer.failed or self.cluster.random.random() < self.cluster.network.transfer_failure
        done = events.TransferFinished(
            transfer=spec.transfer_id,
            rank=0,
            ok=complete and not failed,
            bytes=transfer.posted,
            seconds=0.01,
            write_failed=failed,
        )
        self.cluster.later(0.001, lambda: self.handle(done))
        if failed and transfer.posted:
            self.land_late(transfer)

    def land_late(self, transfer: RunningTransfer) -> None:
        """The bytes of a write that failed for its sender arrive after all, unless their receiver died."""
        last = transfer.posted - 1
        block = transfer.spec.remote_blocks[last]
        content = self.executor.read(transfer.spec.local_blocks[last])
        receiver = self.cluster.nodes.get(PeerId(transfer.spec.peer))

        def land() -> None:
            if receiver is not None and receiver.alive:
                assert receiver.core.may_be_written(block), "a failed write landed outside any lease"
                receiver.executor.write(block, content)

        self.cluster.later(4 * self.cluster.network.write_delay, land)
