"""kopf's part: watching PDClusters. Every event puts its object into the cache and its key into the queue.

Pods and children are `child_watch`'s. kopf writes nothing to any object.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import kopf

from pdcluster_operator.cache import Cache
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.observe import ClusterKey
from pdcluster_operator.resources import PD_CLUSTER

REQUEST_SECONDS = 30.0
WATCH_SECONDS = 300
"""An integer: the API server takes no other."""


def registry(cache: Cache, changed: Callable[[ClusterKey], None]) -> kopf.OperatorRegistry:
    """The handler of PDClusters."""
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(_login)

    async def notice(event: kopf.RawEvent, **_: Any) -> None:
        take = cache.remove if event["type"] == "DELETED" else cache.put
        key = take(PD_CLUSTER.kind, dict(event["object"]))
        if key is not None:
            changed(key)

    kopf.on.event(PD_CLUSTER.group, PD_CLUSTER.version, PD_CLUSTER.plural, id="notice", registry=found)(notice)
    return found


def settings() -> kopf.OperatorSettings:
    """kopf as a watcher and nothing else: no events, no peering, no scanning for kinds."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True
    found.scanning.disabled = True
    found.persistence.diffbase_storage = _NoDifferences()
    found.networking.request_timeout = REQUEST_SECONDS
    found.watching.server_timeout = WATCH_SECONDS
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
