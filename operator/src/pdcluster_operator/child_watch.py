"""The watches of pods and children, all of which must be there.

Beside kopf, which watches PDClusters. kopf (1.45) keeps a task, a queue and the whole object for each of a kind until
all are listed, and wakes each of them for each other: with the objects of 190 PDClusters an operator that took over
needed 20 s of processor time and 308 MB before its first turn, and the time grows with the square of their number. And
what was deleted while a watch was broken, kopf never tells.
"""

import asyncio
import time
from collections.abc import Callable

from pdcluster_operator.desired.labels import CLUSTER
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.follow import News, Scope
from pdcluster_operator.intake import FirstLook, Intake
from pdcluster_operator.resources import CHILDREN, POD

BLIND_SECONDS = 60.0
"""Half a picture for so long is worse than no operator: the process ends."""


class ChildWatch:
    """`run` until cancelled; after `listed` everything that exists is in the cache."""

    def __init__(
        self, intake: Intake, namespaces: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._intake = intake
        self._clock = clock
        places = namespaces or ("",)
        self._scopes = [Scope(kind, place, label_selector=CLUSTER) for kind in (POD, *CHILDREN) for place in places]
        self._first_look = FirstLook(self._scopes)

    async def listed(self) -> None:
        """Returns when every kind has been listed once, so that no turn begins on half a picture."""
        await self._first_look.done()

    async def run(self) -> None:
        """Raises OperatorError when a kind can neither be listed nor watched for `BLIND_SECONDS`."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(self._follow(scope))

    async def _follow(self, scope: Scope) -> None:
        lost: float | None = None
        async for change in self._intake.follow(scope):
            if change.news is News.COMPLETE:
                lost = None
                self._first_look.seen(scope)
                continue
            lost = self._clock() if lost is None else lost
            if self._clock() - lost >= BLIND_SECONDS:
                raise OperatorError(f"{scope.resource.plural} can be neither listed nor watched: {change.error}")
