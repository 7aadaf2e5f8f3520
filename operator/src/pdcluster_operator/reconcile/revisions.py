"""Revisions: what the pods of a spec look like is worked out once, kept in a ControllerRevision, and used from there.

So a new version of the operator, which would render other templates, restarts no pod; and an old revision comes back
exactly as it was. Pure.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pdcluster_operator.crd.cluster import ClusterSpec
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes import owned
from pdcluster_operator.desired.kubernetes_pod import templates
from pdcluster_operator.desired.naming import ROUTER
from pdcluster_operator.desired.revision import LENGTH, pod_spec, revision_of
from pdcluster_operator.fields import HASH_ANNOTATION, covers, digest, stamped
from pdcluster_operator.observe import Child, RevisionFacts
from pdcluster_operator.reconcile.situation import Apply, Delete, Situation

Manifest = dict[str, Any]

KEPT = 10
MOST_GUESSED = 100
"""The number that a revision had is looked for among so many, by the hash that it was applied with."""
WORKERS = "workers"
ROUTER_FIELDS = {"model", "engine", "router", "tls", "observability", "security"}
ROUTER_FIELDS_OUTSIDE = {"router": {"replicas"}, "security": {"network_policy", "allow_from"}}


@dataclass(frozen=True, slots=True)
class Resolved:
    """The revision of the spec, the templates of all its pods, and what is to be written or removed for it."""

    revision: str
    templates: dict[str, Manifest]
    actions: tuple[Apply | Delete, ...]


def router_revision_of(spec: ClusterSpec) -> str:
    """Ten hex digits that are equal for equal router pods: the router does not restart when only workers change."""
    fields = spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include=ROUTER_FIELDS, exclude=ROUTER_FIELDS_OUTSIDE
    )
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:LENGTH]


def resolve(situation: Situation) -> Resolved:
    """The templates of the spec: kept ones if its revision was seen before, new ones otherwise."""
    cluster = situation.cluster
    revisions = {WORKERS: revision_of(cluster), ROUTER: router_revision_of(cluster.spec)}
    found: dict[str, Manifest] = {}
    actions: list[Apply | Delete] = []
    fresh: dict[str, Manifest] | None = None
    for part, revision in revisions.items():
        kept = situation.child("ControllerRevision", _name(cluster.metadata.name, part, revision))
        if kept and isinstance(kept.facts, RevisionFacts):
            found |= kept.facts.content()["templates"]
            actions += _repaired(situation, part, revision, kept)
            continue
        fresh = fresh or templates(cluster, situation.release)
        mine = {role: template for role, template in fresh.items() if (role == ROUTER) == (part == ROUTER)}
        found |= mine
        spec = pod_spec(cluster.spec) if part == WORKERS else {}
        number = 1 + max((_number(child) for child in _all(situation, part)), default=0)
        content = {"spec": spec, "templates": mine}
        actions.append(Apply(stamped(_manifest(situation, part, revision, content, number)), only_create=True))
    return Resolved(revisions[WORKERS], found, (*actions, *_forgotten(situation, revisions)))


def _name(cluster: str, part: str, revision: str) -> str:
    return f"{cluster}-{part}-{revision}"


def _repaired(situation: Situation, part: str, revision: str, kept: Child) -> list[Apply]:
    """What undoes somebody's edit: of labels, or of the number; the data nobody can change."""
    if not isinstance(kept.facts, RevisionFacts) or kept.leaving:
        return []
    number = kept.facts.number
    bare = _manifest(situation, part, revision, {}, number)
    bare = {**bare, "metadata": {**bare["metadata"], "annotations": {HASH_ANNOTATION: kept.applied}}}
    if covers(kept.fields, {name: value for name, value in bare.items() if name != "data"}):
        return []
    content = kept.facts.content()
    manifest = _manifest(situation, part, revision, content, number)
    for guess in range(1, MOST_GUESSED):
        likely = _manifest(situation, part, revision, content, guess)
        if digest(likely) == kept.applied:
            manifest = likely
    return [Apply(stamped(manifest), version=kept.version)]


def _manifest(situation: Situation, part: str, revision: str, content: Manifest, number: int) -> Manifest:
    cluster = situation.cluster
    return owned(
        cluster,
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": _name(cluster.metadata.name, part, revision),
                "labels": {labels.ROLE: part, labels.REVISION: revision},
            },
            "revision": number,
            "data": content,
        },
    )


def _forgotten(situation: Situation, current: dict[str, str]) -> list[Delete]:
    """Revisions beyond those that are kept; one that a pod still runs is never among them."""
    name, used = situation.cluster.metadata.name, {pod.revision for pod in situation.pods}
    stale: list[Delete] = []
    for part, revision in current.items():
        safe = {_name(name, part, entry) for entry in (revision, *used)}
        old = [child for child in _all(situation, part) if child.key.name not in safe and not child.leaving]
        old.sort(key=_number, reverse=True)
        stale += [Delete(child) for child in old[KEPT - 1 :]]
    return stale


def _all(situation: Situation, part: str) -> list[Child]:
    return [
        child
        for child in situation.children.values()
        if child.key.kind == "ControllerRevision"
        and child.role == part
        and child.owner == situation.cluster.metadata.uid
    ]


def _number(child: Child) -> int:
    return child.facts.number if isinstance(child.facts, RevisionFacts) else 0
