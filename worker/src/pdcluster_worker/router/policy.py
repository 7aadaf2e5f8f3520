"""Which worker takes a prompt. Pure: reported states, the prompt and what this router remembers of prefixes go in.

The measure is seconds: queued prefill work, plus the prompt's own tokens less the prefix that the worker is believed to
hold.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from pdcluster_worker.core.wire import Role
from pdcluster_worker.router.config import Policy

BLOCK_BYTES = 64 * 4
DEFAULT_TOKENS_PER_SECOND = 1000.0


class Candidate(msgspec.Struct, frozen=True):
    """A worker as last reported. `queued_tokens` counts what this router sent since as well."""

    instance: str
    role: Role
    pairing: str
    """Revision and layout hash: workers pair only when these are equal."""
    queued_tokens: int
    tokens_per_second: float
    kv_peers: int
    available: bool
    """Connected, ready and not draining."""


class PrefixMemory:
    """Which worker computed which prefix last, by a rolling hash of whole blocks. Bounded; the oldest are forgotten."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._workers: OrderedDict[int, str] = OrderedDict()

    def remember(self, hashes: Sequence[int], instance: str) -> None:
        for value in hashes:
            self._workers[value] = instance
            self._workers.move_to_end(value)
        while len(self._workers) > self._most:
            self._workers.popitem(last=False)

    def matched(self, hashes: Sequence[int], instance: str) -> int:
        """Leading blocks that the worker computed last."""
        count = 0
        for value in hashes:
            if self._workers.get(value) != instance:
                break
            count += 1
        return count


def block_hashes(tokens: bytes, salt: str) -> list[int]:
    """One per whole block, each over all blocks up to it. `tokens` is little-endian uint32."""
    found, value = [], hash(salt)
    for start in range(0, len(tokens) - BLOCK_BYTES + 1, BLOCK_BYTES):
        value = hash((value, tokens[start : start + BLOCK_BYTES]))
        found.append(value)
    return found


def routable(workers: Sequence[Candidate]) -> list[Candidate]:
    """Those that can take a prompt now: mixed ones, and prefill ones whose KV can move to some decode worker."""
    decoders = {worker.pairing for worker in workers if worker.role is Role.DECODE and worker.available}
    return [
        worker
        for worker in workers
        if worker.available
        and (
            worker.role is Role.MIXED
            or (worker.role is Role.PREFILL and worker.kv_peers > 0 and worker.pairing in decoders)
        )
    ]


class Chooser:
    """The policy and what it remembers; the router's loop is the only writer."""

    def __init__(self, policy: Policy, min_disagg_tokens: int) -> None:
        self._policy = policy
        self._min_disagg_tokens = min_disagg_tokens
        self._prefixes = PrefixMemory()
        self._turn = 0

    def choose(
        self, workers: Sequence[Candidate], tokens: int, hashes: Sequence[int], avoid: str = ""
    ) -> Candidate | None:
        """None when no worker can take it now. `avoid` is chosen only when there is no other."""
        able = routable(workers)
        able = [worker for worker in able if worker.instance != avoid] or able
        role = Role.MIXED if tokens < self._min_disagg_tokens else Role.PREFILL
        able = [worker for worker in able if worker.role is role] or able
        if not able:
            return None
        best = self._best(able, tokens, hashes)
        self._prefixes.remember(hashes, best.instance)
        return best

    def _best(self, able: Sequence[Candidate], tokens: int, hashes: Sequence[int]) -> Candidate:
        self._turn += 1
        turned = [able[(self._turn + offset) % len(able)] for offset in range(len(able))]
        if self._policy is Policy.ROUND_ROBIN:
            return turned[0]
        if self._policy is Policy.LEAST_TOKENS:
            return min(turned, key=lambda worker: worker.queued_tokens)
        return min(turned, key=lambda worker: self._seconds(worker, tokens, hashes))

    def _seconds(self, worker: Candidate, tokens: int, hashes: Sequence[int]) -> float:
        matched = self._prefixes.matched(hashes, worker.instance) * (BLOCK_BYTES // 4)
        return (worker.queued_tokens + tokens - matched) / (worker.tokens_per_second or DEFAULT_TOKENS_PER_SECOND)
