"""The workers that the router knows: their links, who may pair with whom, what they allow. No request is touched here.

The router's loop is the only writer.
"""

from collections.abc import Callable, Iterable

from pdcluster_worker.core.wire import Role
from pdcluster_worker.router.config import StaticWorker
from pdcluster_worker.router.link import Link
from pdcluster_worker.router.metrics import RouterMetrics
from pdcluster_worker.router.policy import Candidate, routable
from pdcluster_worker.router.sampling import Limits
from pdcluster_worker.splitwise.inference_messages import PeerRecord, WorkerHello, WorkerState


class Fleet:
    """`make_link` makes a link that is not started yet. `fallback` are the limits while no worker is known."""

    def __init__(self, make_link: Callable[[StaticWorker], Link], fallback: Limits) -> None:
        self._make_link = make_link
        self._fallback = fallback
        self._links: dict[str, Link] = {}
        self._gone_pods: tuple[str, ...] = ()

    @property
    def links(self) -> Iterable[Link]:
        return self._links.values()

    def by_instance(self, instance: str) -> Link | None:
        """The link whose last hello was of this process, connected or not."""
        for link in self._links.values():
            if link.instance == instance:
                return link
        return None

    def set_workers(self, workers: Iterable[StaticWorker]) -> None:
        """Starts links to new addresses, retires those to addresses that are gone: they may end what they have."""
        wanted = {worker.address: worker for worker in workers}
        for address, link in self._links.items():
            link.retired = address not in wanted
        for address, worker in wanted.items():
            if address not in self._links:
                self._links[address] = self._make_link(worker)
                self._links[address].start()
        self.push_peers()

    def set_gone(self, names: frozenset[str]) -> None:
        """Pods that no longer exist: whoever waits for proof of their death learns of it, now or when it connects."""
        self._gone_pods = tuple(sorted(names))
        self.push_peers()

    def remove(self, link: Link) -> None:
        self._links.pop(link.address, None)

    def retired_idle(self) -> list[Link]:
        """Retired links with nothing left to end, or nothing to end it on."""
        return [link for link in self._links.values() if link.retired and not (link.connected and link.entries)]

    def candidates(self) -> list[Candidate]:
        return [_candidate(link, hello) for link, hello in self._connected()]

    def _connected(self) -> list[tuple[Link, WorkerHello]]:
        usable = [link for link in self._links.values() if link.connected and not link.retired]
        return [(link, link.hello) for link in usable if link.hello is not None]

    def ready(self) -> bool:
        """A prompt could be sent somewhere now."""
        return bool(routable(self.candidates()))

    def count(self, metrics: RouterMetrics) -> None:
        """Sets the gauge of connected workers."""
        for role in Role:
            connected = sum(link.connected and link.role is role for link in self._links.values())
            metrics.workers.labels(role.value).set(connected)

    def push_peers(self) -> None:
        """Tells every prefill worker which decode workers there are for it, every decode worker which pods are gone."""
        connected = self._connected()
        decoders = [(link, hello) for link, hello in connected if hello.role is Role.DECODE]
        for link, mine in connected:
            if mine.role is Role.PREFILL:
                fitting = [(other.address, hello) for other, hello in decoders if _pairing(hello) == _pairing(mine)]
                link.peers(tuple(_peer(address, hello) for address, hello in fitting))
            elif mine.role is Role.DECODE and self._gone_pods:
                link.gone_pods(self._gone_pods)

    def limits(self) -> Limits:
        """The longest request that some worker of every needed role can hold; the smallest vocabulary."""
        hellos = [link.hello for link in self._links.values() if link.hello is not None and not link.retired]
        if not hellos:
            return self._fallback
        longest: dict[Role, int] = {}
        for hello in hellos:
            most = min(hello.max_model_length or 2**31, hello.pool_tokens or 2**31)
            longest[hello.role] = max(longest.get(hello.role, 0), most)
        pair = [longest[role] for role in (Role.PREFILL, Role.DECODE) if role in longest]
        most = max([longest.get(Role.MIXED, 0), min(pair, default=0)])
        vocabulary = min((hello.vocab_size for hello in hellos if hello.vocab_size), default=self._fallback.vocab_size)
        return Limits(min(most, self._fallback.max_model_length) if most == 2**31 else most, vocabulary)


def _pairing(hello: WorkerHello) -> str:
    """Equal in workers that may pair."""
    return f"{hello.revision}\n{hello.layout_hash}"


def _candidate(link: Link, hello: WorkerHello) -> Candidate:
    state = link.state or WorkerState(ready=False)
    return Candidate(
        instance=hello.instance_id,
        role=link.role,
        pairing=_pairing(hello),
        queued_tokens=max(state.queued_tokens, link.outstanding_tokens),
        tokens_per_second=state.prefill_tokens_per_second,
        kv_peers=state.kv_peers,
        available=state.ready and not state.draining,
    )


def _peer(address: str, hello: WorkerHello) -> PeerRecord:
    return PeerRecord(hello.instance_id, address, hello.role, hello.revision, hello.layout_hash)
