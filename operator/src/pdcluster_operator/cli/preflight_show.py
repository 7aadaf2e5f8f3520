"""What `pdc preflight` does: read the facts, run every check, show the verdicts."""

from collections.abc import Callable, Iterable
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from pdcluster_operator.cli.checks import cluster as of_cluster
from pdcluster_operator.cli.checks import manifest as of_manifest
from pdcluster_operator.cli.checks.collect import collect
from pdcluster_operator.cli.checks.facts import Check, Facts, Verdict
from pdcluster_operator.cli.checks.fit import devices
from pdcluster_operator.cli.options import Output
from pdcluster_operator.cli.session import Session
from pdcluster_operator.cli.show import show
from pdcluster_operator.crd.cluster import PDCluster

CHECKS: tuple[Callable[[Facts], Iterable[Check]], ...] = (
    of_cluster.crds,
    of_cluster.operator,
    of_cluster.rights,
    of_manifest.namespace,
    of_manifest.accepted,
    devices,
    of_manifest.metrics,
    of_manifest.references,
    of_manifest.storage,
    of_manifest.notes,
)
STYLES = {Verdict.OK: "green", Verdict.NOTE: "cyan", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def verdicts(facts: Facts) -> tuple[Check, ...]:
    """Of every check, in a fixed order. Pure."""
    return tuple(found for check in CHECKS for found in check(facts))


async def check(session: Session, cluster: PDCluster | None, output: Output) -> bool:
    """Whether nothing failed."""
    found = verdicts(await collect(session, cluster))
    good = all(entry.verdict is not Verdict.FAIL for entry in found)
    show(output, _table(found), {"ok": good, "checks": [asdict(entry) for entry in found]})
    return good


def _table(found: Iterable[Check]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("VERDICT", "CHECK", "MESSAGE"):
        table.add_column(column, overflow="fold")
    for entry in found:
        table.add_row(Text(entry.verdict.value, STYLES[entry.verdict]), entry.name, Text(entry.message))
        if entry.remedy:
            table.add_row("", "", Text(f"-> {entry.remedy}", "dim"))
    return table
