"""Prefill and decode cores joined by a simulated network, under a fake clock, with fake executors and a router.

Everything happens at a time of the simulation and in an order that one seed decides. Links between workers may
lose, delay, reorder and duplicate single messages; KV writes take their time and land even when their sender has
died meanwhile. Whatever is written is checked against what the receiving core says about the block, and whatever
is streamed against the undisturbed tokens.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import msgspec
from core_executor import FakeExecutor, sampled_token
from core_requests import expected_tokens, make_config, prepared

from pdcluster_worker.core import effects, events
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.ids import PeerId, RequestKey, StreamId
from pdcluster_worker.core.plan import StepPlan, TransferSpec
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import FailureCode, Role

STREAM = StreamId(1)
FINAL = {FailureCode.INVALID_ARGUMENT, FailureCode.NO_DECODE, FailureCode.DEADLINE, FailureCode.ABORTED}


@dataclass
class Network:
    """How bad the links between workers are. Delays in seconds, chances from 0 to 1."""

    delay: float = 0.001
    jitter: float = 0.0
    loss: float = 0.0
    duplication: float = 0.0
    transfer_failure: float = 0.0
    write_delay: float = 0.004


@dataclass
class Client:
    """One request as its router sees it."""

    request: Request
    expected: list[int]
    tokens: list[int] = field(default_factory=list)
    epoch: int = 1
    prefill: "Node | None" = None
    decode: "Node | None" = None
    outcome: str = ""


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
        if self.plans and not self.busy and self.alive:
            self.busy = True
            self.cluster.later(0.005, self.finish_plan)

    def finish_plan(self) -> None:
        if not self.alive:
            return
        plan = self.plans.pop(0)
        done = self.executor.run(plan)
        self.busy = False
        for spec in plan.transfers:
            if spec.transfer_id in self.transfers:
                self.transfers[spec.transfer_id].started = True
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


class Cluster:
    """Workers, links, one router. `run(seconds)` lets time pass."""

    def __init__(
        self, seed: int = 0, prefills: int = 1, decodes: int = 1, network: Network | None = None, **config: object
    ) -> None:
        self.random = random.Random(seed)
        self.network = network or Network()
        self.now = 100.0
        self.clients: list[Client] = []
        self.nodes: dict[PeerId, Node] = {}
        self.cut: set[frozenset[PeerId]] = set()
        self.blocks = {role: config.pop(f"{role}_blocks", 64) for role in (Role.PREFILL, Role.DECODE)}
        self._config = config
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._names = itertools.count(1)
        for role, number in ((Role.PREFILL, prefills), (Role.DECODE, decodes)):
            for _ in range(number):
                self.add_node(role)

    def config_of(self, role: Role):
        return make_config(role, num_blocks=self.blocks[role], **self._config)

    # --- time ---------------------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), action))

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        self.at(self.now + seconds, action)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            when, _, action = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            action()
        self.now = end

    def run_until_done(self, limit: float = 700.0) -> None:
        end = self.now + limit
        while self.now < end and any(not client.outcome for client in self.clients):
            self.run(0.5)

    # --- workers ------------------------------------------------------------------------------------

    def live(self, role: Role) -> list[Node]:
        return [node for node in self.nodes.values() if node.alive and node.role is role]

    def pairs(self) -> list[tuple[Node, Node]]:
        return [(one, two) for one in self.live(Role.PREFILL) for two in self.live(Role.DECODE)]

    def is_cut(self, prefill: Node, decode: Node) -> bool:
        return frozenset({prefill.peer, decode.peer}) in self.cut

    def add_node(self, role: Role) -> Node:
        node = Node(self, role, PeerId(f"{role}-{next(self._names)}"))
        self.nodes[node.peer] = node
        other = Role.DECODE if role is Role.PREFILL else Role.PREFILL
        for peer in self.live(other):
            self.link(*((node, peer) if role is Role.PREFILL else (peer, node)))
        node.act()
        return node

    def link(self, prefill: Node, decode: Node) -> None:
        """A new handshake of the pair."""
        self.cut.discard(frozenset({prefill.peer, decode.peer}))
        config = decode.config
        decode.handle(events.PrefillLinked(peer=prefill.peer))
        decode.handle(events.PrefillHeartbeat(peer=prefill.peer, heartbeat=prefill.core.lease_set(decode.peer)))
        prefill.handle(
            events.DecodeLinked(
                peer=decode.peer, pool_blocks=config.num_blocks, ranks=config.ranks, lease_ttl=config.lease_ttl
            )
        )
        prefill.handle(events.DecodeHeartbeat(peer=decode.peer, heartbeat=decode.core.lease_set(prefill.peer)))

    def unlink(self, prefill: Node, decode: Node) -> None:
        self.cut.add(frozenset({prefill.peer, decode.peer}))
        prefill.handle(events.DecodeLost(peer=decode.peer))
        decode.handle(events.PrefillLost(peer=prefill.peer))

    def kill(self, node: Node) -> None:
        """SIGKILL: peers see the link break, and soon have proof of the death; posted writes still land."""
        node.alive = False
        other = Role.DECODE if node.role is Role.PREFILL else Role.PREFILL
        for peer in self.live(other):
            if node.role is Role.PREFILL:
                peer.handle(events.PrefillLost(peer=node.peer))
                died = events.PrefillDied(peer=node.peer)
                self.later(0.5, lambda peer=peer, died=died: peer.handle(died))
            else:
                peer.handle(events.DecodeLost(peer=node.peer))
        for client in self.clients:
            if client.outcome:
                continue
            if client.decode is node:
                client.decode = None
                if client.prefill is None:
                    self.resubmit(client)
            if client.prefill is node:
                client.prefill = None
                self._prefill_gone(client)

    def send_all(self, sender: Node, peer: PeerId, batch: list[events.Event]) -> None:
        for event in batch:
            self._send(sender, peer, event)

    def _send(self, sender: Node, peer: PeerId, event: events.Event) -> None:
        network = self.network
        copies = 1 + (self.random.random() < network.duplication)
        for _ in range(copies):
            if self.random.random() < network.loss:
                continue
            delay = network.delay + network.jitter * self.random.random()
            self.later(delay, lambda: self._arrive(sender, peer, event))

    def _arrive(self, sender: Node, peer: PeerId, event: events.Event) -> None:
        receiver = self.nodes.get(peer)
        if receiver is not None and sender.alive and frozenset({sender.peer, peer}) not in self.cut:
            receiver.handle(event)

    # --- router -------------------------------------------------------------------------------------

    def submit(self, request: Request) -> Client:
        client = Client(request=request, expected=expected_tokens(request))
        self.clients.append(client)
        self._submit(client)
        return client

    def resubmit(self, client: Client) -> None:
        if not client.outcome:
            client.epoch += 1
            client.prefill = client.decode = None
            self.later(0.01, lambda epoch=client.epoch: self._submit(client) if client.epoch == epoch else None)

    def abort(self, client: Client) -> None:
        if client.outcome:
            return
        client.outcome = "aborted"
        key = RequestKey(client.request.request_id, client.epoch)
        for node in (client.prefill, client.decode):
            if node is not None:
                node.handle(events.Aborted(stream=STREAM, key=key))

    def _submit(self, client: Client) -> None:
        workers = self.live(Role.PREFILL)
        if client.outcome:
            return
        if not workers:
            self.later(0.1, lambda epoch=client.epoch: self._submit(client) if client.epoch == epoch else None)
            return
        client.prefill = node = self.random.choice(workers)
        output = b"".join(token.to_bytes(4, "little") for token in client.tokens)
        request = msgspec.structs.replace(
            client.request, epoch=client.epoch, tokens=client.request.tokens + output, deadline=client.request.deadline
        )
        handle = self._handle(node, client)
        node.handle(events.Submitted(stream=STREAM, handle=handle, request=request))

    def _handle(self, node: Node, client: Client) -> int:
        handle = len(node.handles) + 1
        node.handles[handle] = (client, client.epoch)
        return handle

    def hear(self, node: Node, out: effects.RouterOut) -> None:
        """Everything that a worker says to the router."""
        for handle, index, token in zip(out.handles, out.indices, out.tokens, strict=True):
            self._token(*node.handles[handle], index, token)
        for reserved in out.reserved:
            client, epoch = node.handles[reserved.handle]
            if epoch == client.epoch and not client.outcome:
                attach = partial(self._attach, client, epoch, reserved.decode)
                self.later(0.002, attach)
        for note in (*out.handed_off, *out.finished, *out.failed):
            assert note.handle not in node.ended_handles, "a request ended twice"
            node.ended_handles.add(note.handle)
            client, epoch = node.handles[note.handle]
            if epoch == client.epoch and not client.outcome:
                self.later(0.0, partial(self._ended, client, epoch, node, note))

    def _token(self, client: Client, epoch: int, index: int, token: int) -> None:
        if client.outcome == "aborted":
            return
        assert token == sampled_token(client.request.sampling.seed, index), "a wrong token"
        assert index <= len(client.tokens), "a gap in the stream"
        if index == len(client.tokens):
            client.tokens.append(token)

    def _attach(self, client: Client, epoch: int, peer: PeerId, lost: bool = False) -> None:
        node = self.nodes[peer]
        if client.outcome or client.epoch != epoch or not node.alive:
            return
        client.decode = node
        key = RequestKey(client.request.request_id, client.epoch)
        handle = self._handle(node, client)
        node.handle(
            events.Attached(stream=STREAM, handle=handle, key=key, next_index=len(client.tokens), prefill_lost=lost)
        )

    def _prefill_gone(self, client: Client) -> None:
        if client.decode is None:
            self.resubmit(client)
        else:
            self._attach(client, client.epoch, client.decode.peer, lost=True)

    def _ended(
        self,
        client: Client,
        epoch: int,
        node: Node,
        note: effects.FinishedNote | effects.FailedNote | effects.HandedOffNote,
    ) -> None:
        if client.outcome or client.epoch != epoch:
            return
        if isinstance(note, effects.HandedOffNote):
            client.prefill = None
            if client.decode is None or client.decode.peer != note.decode or not client.decode.alive:
                self.later(0.001, lambda: self._attach_or_resubmit(client, epoch, note.decode))
        elif isinstance(note, effects.FinishedNote):
            assert note.output_tokens == len(client.tokens) == len(client.expected), "tokens are missing at the end"
            client.outcome = "finished"
        elif note.code in FINAL and not (node.role is Role.DECODE and note.code is FailureCode.ABORTED):
            client.outcome = note.code.name.lower()
        elif node is client.prefill or client.prefill is None:
            self.resubmit(client)

    def _attach_or_resubmit(self, client: Client, epoch: int, peer: PeerId) -> None:
        if self.nodes[peer].alive:
            self._attach(client, epoch, peer)
        elif client.epoch == epoch:
            self.resubmit(client)

    # --- checks -------------------------------------------------------------------------------------

    def check(self) -> None:
        for node in self.nodes.values():
            if node.alive:
                node.core.check_integrity()

    def check_drained(self) -> None:
        """Nothing is held anywhere, every stream was right."""
        for client in self.clients:
            assert client.outcome, f"request {client.request.key} never ended"
            if client.outcome == "finished":
                assert client.tokens == client.expected
        for node in self.nodes.values():
            if not node.alive:
                continue
            node.core.check_integrity()
            snapshot = node.core.snapshot()
            assert node.core.is_empty(), f"{node.peer} holds something: {snapshot}"
            assert snapshot.blocks["free"] + snapshot.blocks["prefix"] == node.config.num_blocks, node.peer
            assert set(snapshot.leases.values()) == {0}, f"{node.peer}: {snapshot.leases}"
            assert not node.transfers


def prefill_events(peer: PeerId, out: effects.ToDecode) -> list[events.Event]:
    """What arrives at the decode worker, in the order of the message's fields."""
    batch: list[events.Event] = []
    for commit in out.commits:
        batch.append(events.CommitAsked(peer=peer, **msgspec.structs.asdict(commit)))
    for closed in out.writes_closed:
        batch.append(events.WritesClosed(peer=peer, **msgspec.structs.asdict(closed)))
    for release in out.releases:
        batch.append(events.Released(peer=peer, **msgspec.structs.asdict(release)))
    for reserve in out.reserves:
        batch.append(events.ReserveAsked(peer=peer, **msgspec.structs.asdict(reserve)))
    if out.heartbeat is not None:
        batch.append(events.PrefillHeartbeat(peer=peer, heartbeat=out.heartbeat))
    return batch


def decode_events(peer: PeerId, out: effects.ToPrefill) -> list[events.Event]:
    batch: list[events.Event] = []
    for grant in out.grants:
        batch.append(events.Granted(peer=peer, **msgspec.structs.asdict(grant)))
    for key in out.queued:
        batch.append(events.QueuedThere(peer=peer, key=key))
    for refusal in out.refusals:
        batch.append(events.Refused(peer=peer, **msgspec.structs.asdict(refusal)))
    for committed in out.committed:
        batch.append(events.CommitAccepted(peer=peer, **msgspec.structs.asdict(committed)))
    for lost in out.leases_lost:
        batch.append(events.LeaseEnded(peer=peer, **msgspec.structs.asdict(lost)))
    if out.credits is not None:
        batch.append(events.CreditsChanged(peer=peer, **msgspec.structs.asdict(out.credits)))
    if out.heartbeat is not None:
        batch.append(events.DecodeHeartbeat(peer=peer, heartbeat=out.heartbeat))
    return batch
