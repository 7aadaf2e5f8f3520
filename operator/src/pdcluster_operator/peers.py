"""Which workers reach peers to move KV blocks to or from: asked of their metrics, when pods change and now and then.

A pod's readiness says nothing about its peers, so this cannot come from the API server. Owned by the event loop.
"""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp

from pdcluster_operator.cache import Cache
from pdcluster_operator.keyed_queue import KeyedQueue
from pdcluster_operator.observe import ClusterKey, Pod
from pdcluster_operator.pace import rest
from pdcluster_operator.plan.site import METRICS_PORT

OTHER = {"prefill": "decode", "decode": "prefill"}
GAUGE = re.compile(rb"^pdc_kv_peers (\S+)$", re.MULTILINE)

LINKING_SECONDS = 15.0
"""A worker that has just come up takes a moment to meet its peers."""
DOUBTFUL_SECONDS = 5.0
"""Until a worker without peers is asked again."""
ANSWER_SECONDS = 3.0
LARGEST_ANSWER = 1 << 20


@dataclass(frozen=True, slots=True)
class Link:
    """What a worker told last, and since when that is so."""

    peers: int
    since: float

    def verdict(self, now: float) -> bool | None:
        """None: too early to say."""
        return True if self.peers else (False if now - self.since >= LINKING_SECONDS else None)


class PeerWatch:
    """`notice` after every change of a cluster; `changed` is called when a verdict did. `read` asks one address."""

    def __init__(
        self,
        cache: Cache,
        changed: Callable[[ClusterKey], None],
        read: Callable[[str], Awaitable[int | None]],
        every: float,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._changed = changed
        self._read = read
        self._every = every
        self._chance = chance
        self._links: dict[ClusterKey, dict[str, Link]] = {}
        self._asked: dict[ClusterKey, frozenset[str]] = {}
        self._verdicts: dict[ClusterKey, Mapping[str, bool]] = {}
        self._queue: KeyedQueue[ClusterKey] = KeyedQueue(self._look, lambda key, error: None, debounce=1.0)

    def linked(self, key: ClusterKey) -> Mapping[str, bool]:
        """By the uid of a pod: whether it reaches a peer; those of which it is not known are not there."""
        return self._verdicts.get(key, {})

    def notice(self, key: ClusterKey) -> None:
        """Asks soon if other workers are to be asked than before."""
        uids = frozenset(pod.uid for pod in asked(self._cache.view(key).pods))
        if not uids:
            for known in (self._links, self._asked, self._verdicts):
                known.pop(key, None)
        elif uids != self._asked.get(key):
            self._asked[key] = uids
            self._queue.add(key)

    async def run(self) -> None:
        await self._queue.run(workers=4)

    async def _look(self, key: ClusterKey) -> float | None:
        pods = asked(self._cache.view(key).pods)
        if not pods:
            return None
        old = self._links.get(key, {})
        told = await asyncio.gather(*(self._read(pod.address) for pod in pods))
        now = asyncio.get_running_loop().time()
        self._links[key] = {
            pod.uid: _link(old.get(pod.uid), peers, now)
            for pod, peers in zip(pods, told, strict=True)
            if peers is not None
        }
        verdicts = {uid: link.verdict(now) for uid, link in self._links[key].items()}
        found = {uid: verdict for uid, verdict in verdicts.items() if verdict is not None}
        if found != self.linked(key):
            self._verdicts[key] = found
            self._changed(key)
        doubtful = any(link.peers == 0 for link in self._links[key].values())
        return min(DOUBTFUL_SECONDS, self._every) if doubtful else rest(self._every, len(self._asked), self._chance)


def asked(pods: Mapping[str, Pod]) -> list[Pod]:
    """Workers that ought to have a peer: ready, staying, and beside a ready one of the other role and same revision."""
    able = [pod for pod in pods.values() if pod.ready and not pod.leaving and pod.address and pod.drain_uid != pod.uid]
    sides = {(pod.role, pod.revision) for pod in able}
    return [pod for pod in able if pod.role in OTHER and (OTHER[pod.role], pod.revision) in sides]


def _link(old: Link | None, peers: int, now: float) -> Link:
    same = old is not None and bool(old.peers) == bool(peers)
    return Link(peers, old.since if same and old else now)


async def read_peers(session: aiohttp.ClientSession, address: str) -> int | None:
    """How many peers the worker at this address says that it reaches; None when it does not answer or say."""
    host = f"[{address}]" if ":" in address else address
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            session.get(f"http://{host}:{METRICS_PORT}/metrics", allow_redirects=False) as answer,
        ):
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > LARGEST_ANSWER:
                    return None
            return peers_in(bytes(body)) if answer.status == 200 else None
    except (TimeoutError, aiohttp.ClientError, OSError):
        return None


def peers_in(metrics: bytes) -> int | None:
    """The gauge in a worker's metrics; None when it is not there, or no number of peers."""
    found = GAUGE.search(metrics)
    try:
        return int(float(found[1])) if found else None
    except (ValueError, OverflowError):
        return None
