"""kopf's part: watching. Every event puts an object's facts into the cache and its cluster's key into the queue.

An index is what kopf fills before it lets any handler run, so that no turn begins on half a picture. Nothing is kept in
kopf's own indices, and kopf writes nothing to any object.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import kopf

from pdcluster_operator import kopf_start
from pdcluster_operator.cache import Cache
from pdcluster_operator.desired.labels import CLUSTER
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.observe import ClusterKey, cluster_of
from pdcluster_operator.resources import CHILDREN, PD_CLUSTER, POD, Resource

REQUEST_SECONDS = 30.0
WATCH_SECONDS = 300
"""An integer: the API server takes no other."""


def registry(
    cache: Cache, changed: Callable[[ClusterKey], None], pod_gone: Callable[[str], None]
) -> kopf.OperatorRegistry:
    """Handlers for every kind that is watched."""
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(_login)
    for resource in (PD_CLUSTER, POD, *CHILDREN):
        _watch(found, resource, cache, changed, pod_gone)
    return found


def settings() -> kopf.OperatorSettings:
    """kopf as a watcher and nothing else: no events, no peering, no scanning for kinds, only labelled children."""
    kopf_start.quicken()
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True
    found.scanning.disabled = True
    found.persistence.diffbase_storage = _NoDifferences()
    found.networking.request_timeout = REQUEST_SECONDS
    found.watching.server_timeout = WATCH_SECONDS
    for resource in (POD, *CHILDREN):
        found.watching.label_selectors[resource.group, resource.version, resource.plural] = CLUSTER
    return found


class _NoDifferences:
    """In place of a `kopf.DiffBaseStorage`, which copies every object of every event to compare it with the last."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""


class _Failures(logging.Handler):
    """kopf only logs that one of its parts has ended for good; what that would have told is then missing."""

    def __init__(self, found: asyncio.Future[str]) -> None:
        super().__init__(logging.ERROR)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if " has failed: " in message and not self._found.done():
            self._found.set_result(message)


@contextlib.contextmanager
def failed_watches() -> Iterator[Coroutine[Any, Any, None]]:
    """Something to wait for that raises OperatorError when a watch has failed for good."""
    found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    handler, logger = _Failures(found), logging.getLogger("kopf")

    async def wait() -> None:
        raise OperatorError(await found)

    logger.addHandler(handler)
    try:
        yield wait()
    finally:
        logger.removeHandler(handler)
        found.cancel()


def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """The pod's service account, else a kubeconfig."""
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)


def _watch(
    found: kopf.OperatorRegistry,
    resource: Resource,
    cache: Cache,
    changed: Callable[[ClusterKey], None],
    pod_gone: Callable[[str], None],
) -> None:
    names = {"group": resource.group, "version": resource.version, "plural": resource.plural}
    news: set[str] = set()

    async def remember(body: kopf.Body, **_: Any) -> None:
        if cache.put(resource.kind, dict(body)):
            news.add(body["metadata"]["uid"])

    async def notice(event: kopf.RawEvent, **_: Any) -> None:
        manifest = dict(event["object"])
        uid, key = manifest["metadata"]["uid"], None
        if event["type"] == "DELETED":
            if resource is POD:
                pod_gone(uid)
            key = cache.remove(resource.kind, manifest)
        elif uid in news:
            # `remember` has been called for this very event before.
            key = cluster_of(resource.kind, manifest)
        news.discard(uid)
        if key is not None:
            changed(key)

    kopf.index(**names, id=f"remember-{resource.plural}", registry=found)(remember)
    kopf.on.event(**names, id=f"notice-{resource.plural}", registry=found)(notice)
