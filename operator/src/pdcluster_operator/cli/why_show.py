"""What `pdc why` does: read the role's objects, and show the answer."""

from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.text import Text

from pdcluster_operator.cli.options import Output
from pdcluster_operator.cli.session import ClusterError, Session
from pdcluster_operator.cli.show import show
from pdcluster_operator.cli.user_api import if_allowed
from pdcluster_operator.cli.why_answer import Answer, answer
from pdcluster_operator.cli.why_facts import Facts
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import group_name
from pdcluster_operator.resources import (
    AUTOSCALER,
    PD_ROLE_SCALER,
    POD,
    STATEFUL_SET,
    Manifest,
    Resource,
)

CORE_EVENT = Resource("", "v1", "events", "Event")


async def explain(session: Session, name: str | None, role: str, output: Output) -> None:
    """Raises ClusterError when there is no such cluster or role."""
    manifest = await session.cluster(name)
    found = answer(await _facts(session, manifest, role))
    document = {**asdict(found), "cluster": manifest["metadata"]["name"], "namespace": session.namespace}
    show(output, _text(found), document)


def _text(found: Answer) -> RenderableType:
    lines = [
        Text.assemble(("! " if entry.limits else "- ", "yellow" if entry.limits else "dim"), entry.text)
        for entry in found.findings
    ]
    return Group(Text(found.headline, "bold"), *lines)


async def _facts(session: Session, manifest: Manifest, role: str) -> Facts:
    cluster = parse(manifest)
    name, namespace = cluster.metadata.name, session.namespace
    if role not in cluster.spec.roles():
        raise ClusterError(f"PDCluster {name} has no role {role}; it has {', '.join(cluster.spec.roles())}")
    mine = f"{labels.CLUSTER}={name}"
    scalers = await session.api.list(PD_ROLE_SCALER, namespace, mine)
    return Facts(
        role=role,
        manifest=manifest,
        cluster=cluster,
        scalers=_by_role(scalers),
        stateful_sets=_by_role(await session.api.list(STATEFUL_SET, namespace, mine)),
        autoscaler=await _autoscaler(session, group_name(name, role)),
        pods=tuple(await session.api.list(POD, namespace, mine)),
        events=await _events(session, group_name(name, role)),
    )


def _by_role(found: list[Manifest]) -> dict[str, Manifest]:
    return {entry["metadata"]["labels"].get(labels.ROLE, ""): entry for entry in found}


async def _autoscaler(session: Session, group: str) -> Manifest | None:
    """The one that drives the role's scaler, whoever made it."""
    for entry in await if_allowed(session.api.list(AUTOSCALER, session.namespace)) or []:
        target = entry["spec"]["scaleTargetRef"]
        if target["kind"] == PD_ROLE_SCALER.kind and target["name"] == group:
            return dict(entry)
    return None


async def _events(session: Session, group: str) -> tuple[Manifest, ...]:
    """Warnings about the StatefulSet, the oldest first; a caller who may not read events gets none."""
    found = await if_allowed(session.api.list(CORE_EVENT, session.namespace)) or []
    mine = [
        entry
        for entry in found
        if entry["involvedObject"].get("kind") == STATEFUL_SET.kind and entry["involvedObject"].get("name") == group
    ]
    return tuple(sorted(mine, key=lambda entry: str(entry.get("lastTimestamp") or entry.get("eventTime") or "")))
