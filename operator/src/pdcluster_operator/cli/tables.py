"""A PDCluster's status as tables for people."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pdcluster_operator.cli.view import ConditionView, PodView, RevisionsView, RoleView, StatusView

GOOD, BAD, BUSY, QUIET = "green", "red", "yellow", "dim"
WANTED = {"Progressing": "False", "Degraded": "False"}
"""The status that a condition should have; `True` where it is not named."""


def status_tables(views: Sequence[StatusView]) -> RenderableType:
    """All of them, one below the other."""
    if not views:
        return Text("no PDClusters found")
    return Group(*(part for view in views for part in _cluster(view)))


def _cluster(view: StatusView) -> list[RenderableType]:
    title = Text.assemble((f"{view.namespace}/{view.name}", "bold"), f"  {view.endpoint}")
    parts: list[RenderableType] = [title]
    if view.paused:
        parts.append(Text("spec.paused is true: the operator changes nothing", BUSY))
    if not view.current:
        parts.append(Text("the operator has not told of the latest spec yet", BUSY))
    parts += [_conditions(view.conditions), _roles(view.roles), _revisions(view.revisions), _pods(view.pods), Text("")]
    return parts


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style=QUIET)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _conditions(conditions: Sequence[ConditionView]) -> Table:
    table = _table("CONDITION", "STATUS", "REASON", "MESSAGE")
    for entry in conditions:
        style = GOOD if entry.status == WANTED.get(entry.type, "True") else BAD if entry.type == "Degraded" else BUSY
        table.add_row(entry.type, Text(entry.status, style), entry.reason, Text(entry.message))
    return table


def _roles(roles: Sequence[RoleView]) -> Table:
    table = _table("ROLE", "DESIRED", "EFFECTIVE", "READY", "UPDATED", "DRAINING", "LIMITED BY")
    for entry in roles:
        ready = Text(str(entry.ready), GOOD if entry.ready >= entry.effective else BUSY)
        numbers = (str(entry.desired), str(entry.effective), ready, str(entry.updated), str(entry.draining))
        table.add_row(entry.name, *numbers, Text(entry.limited_by or "-"))
    return table


def _revisions(revisions: RevisionsView) -> Text:
    if revisions.current == revisions.target:
        return Text.assemble(("REVISION ", QUIET), revisions.current or "-", f"  {revisions.phase}")
    done = f"  {revisions.phase}: {revisions.updated} of {revisions.total} pods"
    return Text.assemble(("REVISION ", QUIET), f"{revisions.current} -> {revisions.target}", done)


def _pods(pods: Sequence[PodView]) -> Table:
    table = _table("POD", "ROLE", "REVISION", "PHASE", "READY", "DRAIN", "NODE", "RESTARTS")
    for entry in pods:
        ready = Text("yes", GOOD) if entry.ready else Text("no", BUSY)
        words = (entry.drain.value or "-", entry.node or "-", str(entry.restarts))
        table.add_row(entry.name, entry.role, entry.revision or "-", entry.phase, ready, *words)
    return table
