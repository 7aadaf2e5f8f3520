"""What `pdc status` does: list and show, or follow the PDClusters and their pods and show each change.

The mirror is changed by the watches alone, all on one event loop.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.live import Live

from pdcluster_operator.cli.options import Output
from pdcluster_operator.cli.session import ClusterError, Session
from pdcluster_operator.cli.show import as_text, console, show
from pdcluster_operator.cli.tables import status_tables
from pdcluster_operator.cli.user_api import Changed, Listed, Selection
from pdcluster_operator.cli.view import StatusView, status_view
from pdcluster_operator.desired import labels
from pdcluster_operator.resources import PD_CLUSTER, POD, Manifest, Resource

Key = tuple[str, str]
"""Namespace and name."""

QUIET_SECONDS = 0.1
"""Changes that come together are shown together."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which PDClusters: one by name, or those of the namespace, or of all."""

    name: str | None
    every_namespace: bool
    output: Output

    def selections(self) -> dict[Resource, Selection]:
        """What to ask the API server for, by kind."""
        if not self.name:
            return {PD_CLUSTER: Selection(), POD: Selection(labels=labels.CLUSTER)}
        only = Selection(fields=f"metadata.name={self.name}")
        return {PD_CLUSTER: only, POD: Selection(labels=f"{labels.CLUSTER}={self.name}")}


@dataclass
class Mirror:
    """The objects as they are now."""

    clusters: dict[Key, Manifest] = field(default_factory=dict)
    pods: dict[Key, Manifest] = field(default_factory=dict)

    def take(self, resource: Resource, change: Listed | Changed) -> None:
        objects = self.clusters if resource is PD_CLUSTER else self.pods
        if isinstance(change, Listed):
            objects.clear()
            objects.update({key_of(entry): entry for entry in change.items})
        elif change.gone:
            objects.pop(key_of(change.manifest), None)
        else:
            objects[key_of(change.manifest)] = change.manifest

    def views(self) -> tuple[StatusView, ...]:
        return tuple(
            status_view(cluster, _pods_of(cluster, self.pods.values())) for _, cluster in sorted(self.clusters.items())
        )


def key_of(manifest: Manifest) -> Key:
    return (manifest["metadata"]["namespace"], manifest["metadata"]["name"])


def document_of(views: Iterable[StatusView], question: Question) -> Mapping[str, Any]:
    """One PDCluster that was named stands for itself; otherwise there is a list."""
    found = [asdict(view) for view in views]
    return found[0] if question.name and not question.every_namespace and found else {"items": found}


async def once(session: Session, question: Question) -> None:
    """Raises ClusterError when there is none of that name."""
    if question.name and not question.every_namespace:
        clusters = [await session.cluster(question.name)]
    else:
        found = await session.api.list(PD_CLUSTER, _namespace(session, question))
        clusters = [entry for entry in found if question.name in (None, entry["metadata"]["name"])]
    pods = await session.api.list(POD, _namespace(session, question), question.selections()[POD].labels)
    mirror = Mirror()
    mirror.take(PD_CLUSTER, Listed(tuple(clusters)))
    mirror.take(POD, Listed(tuple(pods)))
    if question.name and not clusters:
        raise ClusterError(f"there is no PDCluster {question.name} in any namespace")
    show(question.output, status_tables(mirror.views()), document_of(mirror.views(), question))


async def watched(session: Session, question: Question) -> None:
    """Until it is interrupted. JSON has one line, YAML one document, for each state; a terminal is drawn over."""
    mirror, news = Mirror(), asyncio.Event()
    tasks = [
        asyncio.create_task(_mirror(session, question, resource, selection, mirror, news))
        for resource, selection in question.selections().items()
    ]
    try:
        if question.output is Output.TABLE and sys.stdout.isatty():
            with Live(console=console(), auto_refresh=False, transient=False) as live:
                await _each_state(tasks, mirror, news, lambda: live.update(status_tables(mirror.views()), refresh=True))
        else:
            await _each_state(tasks, mirror, news, lambda: _print(mirror, question))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _mirror(
    session: Session,
    question: Question,
    resource: Resource,
    selection: Selection,
    mirror: Mirror,
    news: asyncio.Event,
) -> None:
    async for change in session.api.follow(resource, _namespace(session, question), selection):
        mirror.take(resource, change)
        news.set()


async def _each_state(
    tasks: list["asyncio.Task[None]"], mirror: Mirror, news: asyncio.Event, tell: Callable[[], None]
) -> None:
    """Tells whenever something has changed; raises what ends a watch."""
    last: tuple[StatusView, ...] | None = None
    while True:
        waiting = asyncio.create_task(news.wait())
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done - {waiting}:
            task.result()
        await asyncio.sleep(QUIET_SECONDS)
        news.clear()
        if mirror.views() != last:
            last = mirror.views()
            tell()


def _print(mirror: Mirror, question: Question) -> None:
    document = document_of(mirror.views(), question)
    if question.output is Output.TABLE:
        console().print(status_tables(mirror.views()))
    elif question.output is Output.JSON:
        print(json.dumps(document, ensure_ascii=False), flush=True)
    else:
        print(f"---\n{as_text(document, question.output)}", flush=True)


def _pods_of(cluster: Manifest, pods: Iterable[Manifest]) -> list[Manifest]:
    namespace, name = key_of(cluster)
    return [
        pod
        for pod in pods
        if pod["metadata"]["namespace"] == namespace and pod["metadata"]["labels"].get(labels.CLUSTER) == name
    ]


def _namespace(session: Session, question: Question) -> str | None:
    return None if question.every_namespace else session.namespace
