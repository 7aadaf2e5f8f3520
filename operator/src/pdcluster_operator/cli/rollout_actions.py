"""What `pdc rollout` does: edits of the PDCluster's spec, each against the version that was read, and waits."""

import asyncio
import contextlib
from dataclasses import dataclass
from enum import StrEnum

from rich.table import Table

from pdcluster_operator.cli.history import Revision, chosen, history, way_back
from pdcluster_operator.cli.options import Output
from pdcluster_operator.cli.session import ClusterError, Session
from pdcluster_operator.cli.show import say, show
from pdcluster_operator.cli.user_api import Changed, Selection
from pdcluster_operator.cli.view import condition_of, is_current
from pdcluster_operator.desired import labels
from pdcluster_operator.kube import KubeError
from pdcluster_operator.reconcile.situation import RolloutPhase
from pdcluster_operator.resources import CONTROLLER_REVISION, PD_CLUSTER, POD, Manifest

ATTEMPTS = 5


class _OvertakenError(ClusterError):
    """Somebody else wrote first."""


class Progress(StrEnum):
    WAITING = "Waiting"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a rollout is, in a line for people."""

    progress: Progress
    line: str


def standing(cluster: Manifest) -> Standing:
    """From one state of a PDCluster. Pure."""
    name, status = cluster["metadata"]["name"], cluster.get("status") or {}
    if not is_current(cluster):
        return Standing(Progress.WAITING, f"{name}: waiting for the operator to see the latest spec")
    degraded, rollout = condition_of(cluster, "Degraded"), status.get("rollout") or {}
    target, phase = status.get("targetRevision", ""), rollout.get("phase", "")
    done = f"{rollout.get('updated', 0)} of {rollout.get('total', 0)} pods are of revision {target}"
    if degraded and degraded.status == "True" and degraded.reason in {"InvalidSpec", "ProgressDeadlineExceeded"}:
        return Standing(Progress.FAILED, f"{name}: {degraded.reason}: {degraded.message}")
    if phase == RolloutPhase.STALLED:
        return Standing(Progress.FAILED, f"{name}: stalled: {done}")
    if phase == RolloutPhase.PAUSED:
        return Standing(Progress.WAITING, f"{name}: paused: {done}; `pdc rollout resume {name}` lets it go on")
    if phase != RolloutPhase.COMPLETE:
        return Standing(Progress.WAITING, f"{name}: {done}")
    ready = condition_of(cluster, "Ready")
    if ready is None or ready.status != "True":
        why = f": {ready.reason}: {ready.message}" if ready else ""
        return Standing(Progress.WAITING, f"{name}: {done}, not ready yet{why}")
    return Standing(Progress.COMPLETE, f"{name}: rolled out, {done}")


async def follow(session: Session, name: str | None, seconds: float | None) -> None:
    """Says each step until the rollout is complete; None: only where it stands. Raises ClusterError when it fails."""
    cluster = await session.cluster(name)
    seen = standing(cluster)
    say(seen.line)
    if seconds is None or seen.progress is Progress.COMPLETE:
        return
    try:
        async with asyncio.timeout(seconds):
            await _to_the_end(session, cluster, seen)
    except TimeoutError:
        raise ClusterError(f"gave up waiting after {seconds:g} s; the rollout goes on") from None


async def _to_the_end(session: Session, cluster: Manifest, seen: Standing) -> None:
    name, uid = cluster["metadata"]["name"], cluster["metadata"]["uid"]
    if seen.progress is Progress.FAILED:
        raise ClusterError("the rollout does not go on by itself")
    async for change in session.api.follow(PD_CLUSTER, session.namespace, Selection(fields=f"metadata.name={name}")):
        states = (change.manifest,) if isinstance(change, Changed) else change.items
        if not states or states[0]["metadata"]["uid"] != uid or (isinstance(change, Changed) and change.gone):
            raise ClusterError(f"PDCluster {name} was deleted")
        last, seen = seen, standing(states[0])
        if seen != last:
            say(seen.line)
        if seen.progress is Progress.COMPLETE:
            return
        if seen.progress is Progress.FAILED:
            raise ClusterError("the rollout does not go on by itself")


async def set_paused(session: Session, name: str | None, *, paused: bool) -> None:
    """`spec.rollout.paused`."""
    cluster = await session.cluster(name)
    found, word = cluster["metadata"]["name"], "paused" if paused else "resumed"
    if bool((cluster["spec"].get("rollout") or {}).get("paused")) == paused:
        say(f"{found}: its rollouts are {'paused' if paused else 'not paused'} already")
        return
    await _patch(session, cluster, {"rollout": {"paused": paused}}, guard=("uid",))
    say(f"{found}: rollouts {word}")


async def undo(session: Session, name: str | None, number: int | None) -> None:
    """Back to revision `number`, or to the one before. Decided anew when somebody edits the PDCluster meanwhile."""
    revision: Revision | None = None
    for _ in range(ATTEMPTS):
        cluster = await session.cluster(name)
        found = await _history(session, cluster)
        serving = (cluster.get("status") or {}).get("currentRevision", "")
        revision = revision or chosen(found, number, serving)
        called = f"{cluster['metadata']['name']}: revision {revision.number} ({revision.revision})"
        patch = way_back(cluster, revision)
        if not patch:
            say(f"{called} is what the spec says already")
            return
        with contextlib.suppress(_OvertakenError):
            await _patch(session, cluster, patch, guard=("uid", "resourceVersion"))
            say(f"{called} is put back; change the manifest that you apply as well")
            if (cluster["spec"].get("rollout") or {}).get("paused"):
                say("rollouts are paused: no pod is replaced before `pdc rollout resume`")
            return
    raise ClusterError(f"{called} could not be put back: the PDCluster changes all the time")


async def show_history(session: Session, name: str | None, output: Output) -> None:
    cluster = await session.cluster(name)
    found = await _history(session, cluster)
    document = {
        "namespace": session.namespace,
        "name": cluster["metadata"]["name"],
        "revisions": [
            {
                "number": entry.number,
                "revision": entry.revision,
                "created": entry.created,
                "pods": entry.pods,
                "target": entry.is_target,
                "changes": list(entry.changes),
                "spec": dict(entry.spec),
            }
            for entry in found
        ],
    }
    show(output, _table(found), document)


def _table(found: tuple[Revision, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("NUMBER", "REVISION", "CREATED", "PODS", "TARGET", "CHANGED SINCE THE ONE BEFORE"):
        table.add_column(column, overflow="fold")
    for entry in found:
        words = (entry.created, str(entry.pods), "yes" if entry.is_target else "", ", ".join(entry.changes) or "-")
        table.add_row(str(entry.number), entry.revision, *words)
    return table


async def _history(session: Session, cluster: Manifest) -> tuple[Revision, ...]:
    selector = f"{labels.CLUSTER}={cluster['metadata']['name']}"
    revisions = await session.api.list(CONTROLLER_REVISION, session.namespace, selector)
    pods = await session.api.list(POD, session.namespace, selector)
    return history(cluster, revisions, pods)


async def _patch(session: Session, cluster: Manifest, spec: Manifest, guard: tuple[str, ...]) -> None:
    """Of that very object, or of that very version of it. Raises _OvertakenError when it is another by now."""
    metadata = {key: cluster["metadata"][key] for key in guard}
    name = cluster["metadata"]["name"]
    try:
        await session.api.merge(PD_CLUSTER, session.namespace, name, {"metadata": metadata, "spec": spec})
    except KubeError as error:
        if error.is_conflict:
            raise _OvertakenError(f"PDCluster {name} was changed meanwhile; try again") from error
        raise
