"""The watches of pods and children: every event puts an object's facts into the cache, and its cluster into the queue.

Beside kopf, which watches PDClusters. kopf keeps a task, a queue and the whole object for each of a kind until all are
listed, and wakes each of them for each other (1.45): with the 27,000 objects of 1,000 PDClusters an operator that takes
over would need a gigabyte and hours. And what was deleted while a watch was broken, kopf never tells.
"""

import asyncio
import time
from collections.abc import Callable

from pdcluster_operator.cache import Cache
from pdcluster_operator.desired.labels import CLUSTER
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.follow import Change, Follower, News, Scope
from pdcluster_operator.observe import ClusterKey, cluster_of
from pdcluster_operator.resources import CHILDREN, POD, Manifest

BLIND_SECONDS = 60.0
"""Half a picture for so long is worse than no operator: the process ends."""


class ChildWatch:
    """`run` until cancelled; after `listed` everything that exists is in the cache."""

    def __init__(
        self,
        follower: Follower,
        cache: Cache,
        changed: Callable[[ClusterKey], None],
        pod_gone: Callable[[str], None],
        namespaces: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._follower = follower
        self._cache = cache
        self._changed = changed
        self._pod_gone = pod_gone
        self._clock = clock
        places = namespaces or ("",)
        self._scopes = [Scope(kind, place, label_selector=CLUSTER) for kind in (POD, *CHILDREN) for place in places]
        self._unlisted = set(self._scopes)
        self._all_listed = asyncio.Event()

    async def listed(self) -> None:
        """Returns when every kind has been listed once, so that no turn begins on half a picture."""
        await self._all_listed.wait()

    async def run(self) -> None:
        """Raises OperatorError when a kind can neither be listed nor watched for `BLIND_SECONDS`."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._follow(scope))

    async def _follow(self, scope: Scope) -> None:
        listed: set[str] | None = None
        lost: float | None = None
        async for change in self._follower.changes(scope):
            match change.news:
                case News.LISTING:
                    listed = set()
                case News.CHANGED:
                    if listed is not None:
                        listed.add(change.manifest["metadata"]["uid"])
                    self._take(scope, change.manifest)
                case News.GONE:
                    self._forget(scope, change.manifest)
                case News.COMPLETE:
                    self._complete(scope, listed or set(), change)
                    listed = lost = None
                case News.LOST:
                    lost = self._clock() if lost is None else lost
                    if self._clock() - lost >= BLIND_SECONDS:
                        raise OperatorError(
                            f"{scope.resource.plural} can be neither listed nor watched: {change.reason}"
                        )

    def _take(self, scope: Scope, manifest: Manifest) -> None:
        kind = scope.resource.kind
        key = cluster_of(kind, manifest)
        if self._cache.put(kind, manifest) and key is not None:
            self._changed(key)

    def _forget(self, scope: Scope, manifest: Manifest) -> None:
        if scope.resource is POD:
            self._pod_gone(manifest["metadata"]["uid"])
        key = self._cache.remove(scope.resource.kind, manifest)
        if key is not None:
            self._changed(key)

    def _complete(self, scope: Scope, listed: set[str], change: Change) -> None:
        version = int(change.manifest["metadata"]["resourceVersion"])
        for key, uid in self._cache.keep_only(scope.resource.kind, scope.namespace, listed, version):
            if scope.resource is POD:
                self._pod_gone(uid)
            self._changed(key)
        self._unlisted.discard(scope)
        if not self._unlisted:
            self._all_listed.set()
