"""Why a StatefulSet gets no pods: only events tell that, and they are read only while pods are missing.

`Shortages` is the one writer of what is known about it. At rest nothing is missing, and nothing is read.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import Child, WorkloadFacts
from pdcluster_operator.pace import stretched
from pdcluster_operator.resources import EVENT, Manifest

CROWD = 10
"""When more clusters than so many lack pods at once, their controller is behind, more likely than each in trouble: they
are asked after later in proportion."""
FIELDS = "reason=FailedCreate,regarding.kind=StatefulSet"


@dataclass(frozen=True, slots=True)
class Lack:
    """The words about each StatefulSet that lacks pods, by its uid; `wake_after`: when there may be news."""

    words: Mapping[str, str] = field(default_factory=dict)
    wake_after: float | None = None


@dataclass(slots=True)
class _Reading:
    """One namespace's events, as they were last read; `lock`: they are read once for all clusters that ask."""

    at: float = float("-inf")
    words: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Shortages:
    """Pods may be missing for `patience` seconds before anybody asks why, and so long is an answer good."""

    def __init__(self, kube: Kube, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._patience = patience
        self._clock = clock
        self._since: dict[tuple[str, str], dict[str, float]] = {}
        self._readings: dict[str, _Reading] = {}

    async def look(self, key: tuple[str, str], children: Iterable[Child]) -> Lack:
        """Of one cluster. An API server that does not answer leaves the words unknown."""
        now, known = self._clock(), self._since.get(key, {})
        short = {child.uid: known.get(child.uid, now) for child in children if is_short(child)}
        if not short:
            self.forget(key)
            return Lack()
        self._since[key] = short
        patience = stretched(self._patience, len(self._since), CROWD)
        asked = [uid for uid, since in short.items() if now - since >= patience]
        if not asked:
            return Lack(wake_after=max(patience + min(short.values()) - now, 0.05))
        words = await self._read(key[0], now)
        return Lack({uid: words[uid] for uid in asked if uid in words}, self._patience)

    def forget(self, key: tuple[str, str]) -> None:
        """The cluster is gone, or lacks nothing."""
        self._since.pop(key, None)
        if all(namespace != key[0] for namespace, _ in self._since):
            self._readings.pop(key[0], None)

    async def _read(self, namespace: str, now: float) -> dict[str, str]:
        reading = self._readings.setdefault(namespace, _Reading())
        async with reading.lock:
            if now - reading.at >= self._patience:
                try:
                    reading.words = words_of(await self._kube.list(EVENT, namespace, fields=FIELDS))
                except KubeError:
                    reading.words = {}
                reading.at = now
        return reading.words


def is_short(child: Child) -> bool:
    """Whether its controller has seen it and has made fewer pods than it should."""
    facts = child.facts
    if child.key.kind != "StatefulSet" or child.leaving or not isinstance(facts, WorkloadFacts):
        return False
    return facts.settled and facts.existing < facts.replicas


def words_of(events: Iterable[Manifest]) -> dict[str, str]:
    """The note of the latest event about each object, by its uid."""
    ordered = sorted(events, key=_last_seen)
    return {event["regarding"].get("uid", ""): str(event.get("note", "")) for event in ordered}


def _last_seen(event: Manifest) -> str:
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or "")
