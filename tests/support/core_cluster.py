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
from core_executor import sampled_token
from core_node import STREAM, Node
from core_requests import expected_tokens, make_config

from pdcluster_worker.core import effects, events
from pdcluster_worker.core.ids import PeerId, RequestKey
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import FailureCode, Role

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
        elif note.code is FailureCode.NO_DECODE and (client.tokens or client.epoch > 1):
            self.resubmit(client)
        elif note.code in FINAL and not (node.role is Role.DECODE and note.code is FailureCode.ABORTED):
            client.outcome = note.code.name.lower()
        elif node is client.prefill or client.prefill is None:
            self.resubmit(client)
        elif note.code is FailureCode.PREEMPTED:
            client.prefill.handle(events.Aborted(stream=STREAM, key=RequestKey(client.request.request_id, epoch)))
            self.resubmit(client)
        else:
            client.decode = None

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
