"""What the watches of children and pods tell goes into the cache, and whose it is into the queue.

`Intake` is the only one that puts them there but for the answers to the operator's own writes.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable

from pdcluster_operator.cache import Cache
from pdcluster_operator.follow import Change, Follower, News, Scope
from pdcluster_operator.observe import ClusterKey
from pdcluster_operator.resources import POD, Manifest


class Intake:
    """`changed` is called with each cluster of which there is news, `pod_gone` with the uid of each pod that went."""

    def __init__(
        self,
        follower: Follower,
        cache: Cache,
        changed: Callable[[ClusterKey], None],
        pod_gone: Callable[[str], None],
    ) -> None:
        self._follower = follower
        self._cache = cache
        self._changed = changed
        self._pod_gone = pod_gone

    async def follow(self, scope: Scope) -> AsyncIterator[Change]:
        """Takes all that is told, without end; yields only Complete, when the cache has everything, and Lost."""
        listed: set[str] | None = None
        async for change in self._follower.changes(scope):
            match change.news:
                case News.LISTING:
                    listed = set()
                case News.CHANGED:
                    if listed is not None:
                        listed.add(change.manifest["metadata"]["uid"])
                    self._tell(self._cache.put(scope.resource.kind, change.manifest))
                case News.GONE:
                    self._forget_pod(scope, change.manifest["metadata"]["uid"])
                    self._tell(self._cache.remove(scope.resource.kind, change.manifest))
                case News.COMPLETE:
                    self._complete(scope, listed or set(), change.manifest)
                    listed = None
                    yield change
                case News.LOST:
                    yield change

    def _complete(self, scope: Scope, listed: set[str], marker: Manifest) -> None:
        version = int(marker["metadata"]["resourceVersion"])
        for key, uid in self._cache.keep_only(scope.resource.kind, scope.namespace, listed, version):
            self._forget_pod(scope, uid)
            self._tell(key)

    def _forget_pod(self, scope: Scope, uid: str) -> None:
        if scope.resource is POD:
            self._pod_gone(uid)

    def _tell(self, key: ClusterKey | None) -> None:
        if key is not None:
            self._changed(key)


class FirstLook:
    """Whether each of the scopes has been looked at once: no turn begins on half a picture."""

    def __init__(self, scopes: Iterable[Scope]) -> None:
        self._left = set(scopes)
        self._done = asyncio.Event()

    def seen(self, scope: Scope) -> None:
        self._left.discard(scope)
        if not self._left:
            self._done.set()

    async def done(self) -> None:
        """Returns when all have been seen."""
        await self._done.wait()
