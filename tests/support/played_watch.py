"""A follower that tells what the test has put into the queues of the kinds, and objects for it to tell of."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from pdcluster_operator.desired import labels
from pdcluster_operator.follow import Change, Follower, News, Scope
from pdcluster_operator.resources import Resource


class Played(Follower):
    """`asked` counts how often each kind was asked for something new."""

    def __init__(self) -> None:
        self.told: defaultdict[Resource, asyncio.Queue[Change]] = defaultdict(asyncio.Queue)
        self.asked: defaultdict[Resource, int] = defaultdict(int)

    async def changes(self, scope: Scope) -> AsyncIterator[Change]:
        while True:
            self.asked[scope.resource] += 1
            yield await self.told[scope.resource].get()

    def list(self, kind: Resource, version: int, *manifests: dict[str, Any]) -> None:
        complete = Change(News.COMPLETE, {"metadata": {"resourceVersion": str(version)}})
        for change in (Change(News.LISTING), *(Change(News.CHANGED, entry) for entry in manifests), complete):
            self.told[kind].put_nowait(change)


def thing(name: str, version: int) -> dict[str, Any]:
    """Of PDCluster demo in namespace n."""
    metadata = {"name": name, "namespace": "n", "uid": f"uid-{name}", "resourceVersion": str(version)}
    created = {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {labels.CLUSTER: "demo"}}
    return {"metadata": {**metadata, **created}}
