"""Kinds of other projects: whether this API server has them, and a watch of those that it has.

`ChildWatch` expects every kind to be there; these may come later, when somebody installs cert-manager or the
Prometheus operator. A kind that is not there is asked for again only while a PDCluster wants it.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from pdcluster_operator.cache import Cache
from pdcluster_operator.desired.labels import CLUSTER
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import ClusterKey, cluster_of
from pdcluster_operator.resources import OPTIONAL, Manifest, Resource

log = structlog.get_logger(__name__)

WATCH_SECONDS = 300
AGAIN_SECONDS = 10.0
"""Between two questions for a kind that was not there, or that could not be listed."""
GONE = "ERROR"


class OptionalKinds:
    """`begin`, then `run` until cancelled. The one that puts these kinds' objects into the cache."""

    def __init__(
        self, kube: Kube, cache: Cache, changed: Callable[[ClusterKey], None], namespaces: tuple[str, ...]
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._changed = changed
        self._places: tuple[str | None, ...] = namespaces or (None,)
        self._absent = {resource.kind for resource in OPTIONAL}
        self._wanted = {resource.kind: asyncio.Event() for resource in OPTIONAL}
        self._versions: dict[tuple[str, str | None], str] = {}

    @property
    def absent(self) -> frozenset[str]:
        """Kinds that the API server does not have, or does not let the operator list."""
        return frozenset(self._absent)

    def want(self, kind: str) -> None:
        """A PDCluster has a use for it: look whether it has come."""
        self._wanted[kind].set()

    async def begin(self) -> None:
        """A first look, so that no turn begins without it; a kind that cannot be listed is looked for again later."""
        for resource in OPTIONAL:
            for place in self._places:
                with contextlib.suppress(KubeError):
                    await self._list(resource, place)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for resource in OPTIONAL:
                for place in self._places:
                    group.create_task(self._follow(resource, place))

    async def _follow(self, resource: Resource, place: str | None) -> None:
        while True:
            try:
                if (resource.kind, place) not in self._versions:
                    await self._list(resource, place)
                await self._watch(resource, place)
            except KubeError as error:
                self._versions.pop((resource.kind, place), None)
                if resource.kind in self._absent:
                    await self._wanted[resource.kind].wait()
                    self._wanted[resource.kind].clear()
                else:
                    log.warning("watch_ended", kind=resource.kind, reason=str(error))
                await asyncio.sleep(AGAIN_SECONDS)

    async def _list(self, resource: Resource, place: str | None) -> None:
        """Takes all there is; what is known and no longer there is forgotten."""
        try:
            found, version = await self._kube.list_at(resource, place, CLUSTER)
        except KubeError as error:
            if error.is_missing or error.is_permanent:
                self._absent.add(resource.kind)
            raise
        self._absent.discard(resource.kind)
        self._versions[resource.kind, place] = version
        names = {(entry["metadata"]["namespace"], entry["metadata"]["name"]) for entry in found}
        for key, view in self._cache.views():
            gone = [child for child in view.children.values() if child.key.kind == resource.kind]
            for child in gone:
                if place in {None, key[0]} and (child.key.namespace, child.key.name) not in names:
                    del view.children[child.key]
                    self._changed(key)
        for manifest in found:
            self._take(resource, "ADDED", manifest)

    async def _watch(self, resource: Resource, place: str | None) -> None:
        """Until the server ends it; raises KubeError when what follows has to be listed anew."""
        where = (resource.kind, place)

        def told(kind: str, manifest: Manifest) -> None:
            if kind == GONE:
                raise KubeError(manifest.get("code", 0), manifest.get("reason", ""), manifest.get("message", ""))
            self._versions[where] = manifest["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                self._take(resource, kind, manifest)

        await self._kube.watch(resource, place, CLUSTER, self._versions[where], WATCH_SECONDS, told)

    def _take(self, resource: Resource, kind: str, manifest: Manifest) -> None:
        if kind == "DELETED":
            key = self._cache.remove(resource.kind, manifest)
        else:
            key = cluster_of(resource.kind, manifest) if self._cache.put(resource.kind, manifest) else None
        if key is not None:
            self._changed(key)
