"""Revisions of a PDCluster's workers, and the way back to one of them. Pure.

A revision holds the pod-affecting part of the spec as the user wrote it, without defaults. Going back puts that part
into the spec and leaves the rest, such as numbers of pods, as it is; so the operator finds the same revision again,
with the templates that it kept.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import WORKER_ROLES
from pdcluster_operator.desired.revision import POD_FIELDS, revision_of
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.reconcile.revisions import WORKERS
from pdcluster_operator.resources import Manifest

Spec = dict[str, Any]

KEPT_PARTS = {
    **dict.fromkeys(WORKER_ROLES, ("replicas", "scaling")),
    "security": ("networkPolicy", "allowFrom"),
    "observability": ("podMonitor",),
}
"""What changes no pod, as written in a manifest: it is not part of a revision."""


class UndoError(OperatorError):
    """There is no such revision, or it cannot be applied any more."""


@dataclass(frozen=True, slots=True)
class Revision:
    """`changes`: the paths whose values differ from the revision before."""

    number: int
    revision: str
    created: str
    pods: int
    is_target: bool
    changes: tuple[str, ...]
    spec: Mapping[str, Any]


def history(cluster: Manifest, revisions: Iterable[Manifest], pods: Iterable[Manifest]) -> tuple[Revision, ...]:
    """The revisions of the workers, the oldest first."""
    uid, target = cluster["metadata"]["uid"], revision_of(parse(cluster))
    running = [(pod["metadata"].get("labels") or {}).get(labels.REVISION, "") for pod in pods]
    mine = [entry for entry in revisions if _belongs(entry, uid)]
    found: list[Revision] = []
    for entry in sorted(mine, key=lambda entry: int(entry["revision"])):
        name, spec = entry["metadata"]["labels"][labels.REVISION], (entry.get("data") or {}).get("spec") or {}
        changes = tuple(differences(found[-1].spec, spec)) if found else ()
        created = entry["metadata"]["creationTimestamp"]
        found.append(
            Revision(int(entry["revision"]), name, created, running.count(name), name == target, changes, spec)
        )
    return tuple(found)


def chosen(found: Sequence[Revision], number: int | None, serving: str) -> Revision:
    """The one of that number; without one, what serves while something else is rolled out, else the one before."""
    if number is not None:
        named = next((entry for entry in found if entry.number == number), None)
        if named is None:
            raise UndoError(f"there is no revision {number}; kept are {_numbers(found)}")
        return named
    others = [entry for entry in found if not entry.is_target]
    if not others:
        raise UndoError("there is no revision to go back to")
    return next((entry for entry in others if entry.revision == serving), others[-1])


def way_back(cluster: Manifest, revision: Revision) -> Spec:
    """A merge patch of `spec`; empty when it is like that already. Raises UndoError when the result is invalid."""
    wanted = copy.deepcopy(dict(revision.spec))
    now = cluster["spec"]
    for name, parts in KEPT_PARTS.items():
        kept = {part: now[name][part] for part in parts if part in (now.get(name) or {})}
        if kept and (name in wanted or name not in WORKER_ROLES):
            wanted[name] = {**(wanted.get(name) or {}), **kept}
    outside = {name: value for name, value in now.items() if name not in POD_FIELDS}
    goal = _checked({**cluster, "spec": {**outside, **wanted}}, revision)
    return merge_patch(_plain(parse(cluster)), _plain(goal))


def _checked(manifest: Manifest, revision: Revision) -> PDCluster:
    try:
        goal = parse(manifest)
    except OperatorError as error:
        raise UndoError(f"revision {revision.number} does not fit the rest of the spec: {error}") from error
    if revision_of(goal) != revision.revision:
        raise UndoError(f"revision {revision.number} was made by another version, and reads differently now")
    return goal


def merge_patch(now: Mapping[str, Any], goal: Mapping[str, Any]) -> Spec:
    """What turns the one into the other: RFC 7386."""
    patch: Spec = {name: None for name in now if name not in goal}
    for name, value in goal.items():
        before = now.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[name] = inner
        elif value != before or name not in now:
            patch[name] = value
    return patch


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths whose values differ."""
    found = []
    for name in sorted({*before, *after}):
        old, new, path = before.get(name), after.get(name), f"{prefix}{name}"
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{path}.")
        elif old != new:
            found.append(path)
    return found


def _plain(cluster: PDCluster) -> Spec:
    """With every default spelled out, so that the two sides can be compared."""
    return cluster.spec.model_dump(mode="json", by_alias=True, exclude_none=True)


def _belongs(entry: Manifest, uid: str) -> bool:
    metadata = entry["metadata"]
    owners = {owner["uid"] for owner in metadata.get("ownerReferences") or []}
    return uid in owners and (metadata.get("labels") or {}).get(labels.ROLE) == WORKERS


def _numbers(found: Sequence[Revision]) -> str:
    return ", ".join(str(entry.number) for entry in found) or "none"
