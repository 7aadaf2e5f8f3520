"""Kinds of other projects: whether this API server has them, and a watch of those that it has.

`ChildWatch` expects every kind to be there; these may come later, when somebody installs cert-manager or the
Prometheus operator. A kind that is not there is asked for again only while a PDCluster wants it.
"""

import asyncio

import structlog

from pdcluster_operator.desired.labels import CLUSTER
from pdcluster_operator.follow import News, Scope
from pdcluster_operator.intake import FirstLook, Intake
from pdcluster_operator.resources import OPTIONAL

log = structlog.get_logger(__name__)


class OptionalKinds:
    """`run` until cancelled; after `looked` it is known which of them are there, and what there is of them."""

    def __init__(self, intake: Intake, namespaces: tuple[str, ...]) -> None:
        self._intake = intake
        places = namespaces or ("",)
        # What is not there is no failure, and what is lost is logged here.
        self._scopes = [Scope(kind, place, CLUSTER, quiet=True) for kind in OPTIONAL for place in places]
        self._absent = {kind.kind for kind in OPTIONAL}
        self._wanted = {kind.kind: asyncio.Event() for kind in OPTIONAL}
        self._first_look = FirstLook(self._scopes)

    @property
    def absent(self) -> frozenset[str]:
        """Kinds that the API server does not have, or does not let the operator list."""
        return frozenset(self._absent)

    def want(self, kind: str) -> None:
        """A PDCluster has a use for it: look whether it has come."""
        self._wanted[kind].set()

    async def looked(self) -> None:
        """Returns after a first look at each, so that no turn begins without it, also where that failed."""
        await self._first_look.done()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._follow(scope))

    async def _follow(self, scope: Scope) -> None:
        kind = scope.resource.kind
        async for change in self._intake.follow(scope):
            if change.news is News.COMPLETE:
                self._absent.discard(kind)
            elif change.error and (change.error.is_missing or change.error.is_permanent):
                self._absent.add(kind)
            else:
                log.warning("watch_failed", kind=kind, reason=str(change.error))
            self._first_look.seen(scope)
            if change.news is News.LOST and kind in self._absent:
                await self._wanted[kind].wait()
                self._wanted[kind].clear()
