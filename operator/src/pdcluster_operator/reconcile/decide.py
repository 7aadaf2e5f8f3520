"""decide(): from one PDCluster and what exists of it to what is to be done now. Pure, and the same whenever asked.

Nothing is remembered between turns: a lost turn, a repeated one and one after a restart all come to the same decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pdcluster_operator.crd.scaling import ScalingMode
from pdcluster_operator.desired.kubernetes import HELD, Numbers, Render, children, scaler
from pdcluster_operator.desired.naming import group_name
from pdcluster_operator.fields import HASH_ANNOTATION, covers, stamped
from pdcluster_operator.observe import Child, ScalerFacts, WorkloadFacts
from pdcluster_operator.reconcile import revisions, rollout
from pdcluster_operator.reconcile.damage import damages
from pdcluster_operator.reconcile.drain import Shrink, shrink
from pdcluster_operator.reconcile.hold import hold, is_empty
from pdcluster_operator.reconcile.roles import RolePods, may_shrink
from pdcluster_operator.reconcile.rollout import Step, Terms
from pdcluster_operator.reconcile.situation import (
    Action,
    Apply,
    Create,
    Decision,
    Delete,
    NoteDrained,
    RoleNumbers,
    RolloutPhase,
    Situation,
    StartDrain,
    Trouble,
)
from pdcluster_operator.reconcile.tls import Certificates, certificates_of
from pdcluster_operator.resources import CHILDREN, OPTIONAL, ObjectKey, key_of
from pdcluster_operator.scaling.policy import Limit, Target, bounds_of, request_of, targets

Manifest = dict[str, Any]

GUARDED = frozenset({"StatefulSet", "Deployment"})
"""Kinds whose apply may change replicas, partition or template: only against the version that was decided on."""
ORDER = {resource.kind: number for number, resource in enumerate((*CHILDREN, *OPTIONAL))}


def decide(situation: Situation) -> Decision:
    """What to do now. `spec.paused` leaves only the status, and certificates, which nobody can pause."""
    resolved = revisions.resolve(situation)
    wanted = _targets(situation)
    stepped = _rollout(situation, wanted, resolved.revision)
    shrunk = {role: _shrink(situation, role, stepped) for role in wanted}
    held = _held(situation, shrunk, stepped)
    numbers = {role: Numbers(shrunk[role].replicas, stepped.partitions[role]) for role in wanted}
    tls = certificates_of(situation)
    rendered = children(Render(situation.cluster, resolved.templates, numbers, situation.origin))
    applied = [manifest for manifest in rendered if manifest["kind"] not in situation.absent]
    changes, troubles = _changes(situation, applied)
    actions = (
        *resolved.actions,
        *tls.actions,
        *changes,
        *_scalers(situation, numbers),
        *(action for entry in shrunk.values() for action in entry.actions),
        *stepped.actions,
        *held,
        *_pruned(situation, applied, tls, stepped),
    )
    paused = situation.cluster.spec.paused
    return Decision(
        actions=tls.actions if paused else actions,
        roles={role: _numbers(situation, role, wanted[role], shrunk[role], stepped) for role in wanted},
        rollout=stepped.state,
        troubles=(*troubles, *tls.troubles, *damages(situation), *_lacking(situation)),
        wake_after=_wake(situation, shrunk, stepped, held, tls),
        notes=tls.notes,
        pending_certificates=tls.pending,
    )


def _targets(situation: Situation) -> dict[str, Target]:
    spec, name = situation.cluster.spec, situation.cluster.metadata.name
    requests = {}
    for role in spec.roles():
        group = group_name(name, role)
        live = situation.workload("StatefulSet", group)
        found = situation.child("PDRoleScaler", group)
        asked = found.facts.replicas if found and isinstance(found.facts, ScalerFacts) else None
        existing = len({pod.name for pod in situation.pods_of(role)} | _due(group, live))
        requests[role] = request_of(spec, role, asked, live.replicas if live else None, existing)
    return targets(requests, bounds_of(spec), spec.scaling_policy.max_gpus)


def _due(group: str, live: WorkloadFacts | None) -> set[str]:
    """The pods that the StatefulSet's controller makes as soon as they are missing."""
    return {f"{group}-{ordinal}" for ordinal in range(live.replicas)} if live else set()


def _rollout(situation: Situation, wanted: Mapping[str, Target], revision: str) -> Step:
    spec, name = situation.cluster.spec, situation.cluster.metadata.name
    roles = {}
    for role, target in wanted.items():
        facts = situation.workload("StatefulSet", group_name(name, role)) or _none_yet(target, revision)
        roles[role] = RolePods(facts, situation.pods_of(role), target.effective, revision)
    if not may_shrink(roles):
        roles = {role: replace(entry, wanted=max(entry.wanted, entry.facts.replicas)) for role, entry in roles.items()}
    terms = Terms(
        paused=spec.rollout.paused or spec.paused,
        drained=situation.drained,
        now=situation.now,
        timeout=spec.drain.timeout_seconds,
        deadline=spec.rollout.progress_deadline_seconds,
    )
    return rollout.step(roles, revision, terms)


def _none_yet(target: Target, revision: str) -> WorkloadFacts:
    """What stands for a StatefulSet that does not exist: nothing of it has to be replaced."""
    return WorkloadFacts(target.effective, HELD, 0, 0, 0, "", "", revision, settled=True)


def _shrink(situation: Situation, role: str, stepped: Step) -> Shrink:
    facts = situation.workload("StatefulSet", group_name(situation.cluster.metadata.name, role))
    return shrink(
        situation.pods_of(role),
        stepped.stays[role] if facts is None else facts.replicas,
        stepped.stays[role],
        stepped.leaving | {pod.uid for pod in situation.pods_of(role) if pod.is_held},
        situation.drained,
        situation.now,
        situation.cluster.spec.drain.timeout_seconds,
    )


def _held(situation: Situation, shrunk: Mapping[str, Shrink], stepped: Step) -> list[StartDrain | NoteDrained]:
    """What is done for the requests of people, where nothing else is done to the pod."""
    taken = {action.pod.uid for entry in shrunk.values() for action in entry.actions}
    taken |= {action.pod.uid for action in stepped.actions}
    pods = [pod for role in shrunk for pod in situation.pods_of(role) if pod.uid not in taken]
    return hold(pods, situation.drained, situation.now, situation.cluster.spec.drain.timeout_seconds)


def _changes(situation: Situation, applied: Sequence[Manifest]) -> tuple[list[Apply], tuple[Trouble, ...]]:
    """An apply for every child that is not as it should be; a foreign object of a child's name is left alone."""
    actions, foreign = [], []
    for manifest in map(stamped, sorted(applied, key=lambda entry: ORDER[entry["kind"]])):
        found = situation.children.get(key_of(manifest))
        if found is None or not found.owner:
            # One without an owner may be an orphan of ours: the apply conflicts, and then it is looked at closely.
            actions.append(Apply(manifest, only_create=True))
        elif found.owner != situation.cluster.metadata.uid:
            foreign.append(str(found.key))
        elif not found.leaving and not is_current(manifest, found):
            guard = found.version if found.key.kind in GUARDED else None
            actions.append(Apply(manifest, version=guard))
    message = f"not the operator's, and left alone: {', '.join(foreign)}"
    return actions, (Trouble("NameConflict", message),) if foreign else ()


def is_current(marked: Manifest, found: Child) -> bool:
    """Whether the child is as this stamped manifest would make it: nothing to send."""
    return found.applied == marked["metadata"]["annotations"][HASH_ANNOTATION] and covers(found.fields, marked)


def _scalers(situation: Situation, numbers: Mapping[str, Numbers]) -> list[Action]:
    """One for every role that is not Static, made with the number of pods that there are."""
    spec, name = situation.cluster.spec, situation.cluster.metadata.name
    actions: list[Action] = []
    for role, wanted in spec.roles().items():
        found = situation.child("PDRoleScaler", group_name(name, role))
        if wanted.scaling.mode is not ScalingMode.STATIC and (found is None or found.role != role):
            actions.append(Create(scaler(situation.cluster, role, numbers[role].replicas)))
    return actions


def _lacking(situation: Situation) -> list[Trouble]:
    if situation.cluster.spec.observability.pod_monitor.enabled and "PodMonitor" in situation.absent:
        message = (
            "the API server has no PodMonitor of monitoring.coreos.com/v1, which spec.observability.podMonitor needs"
        )
        return [Trouble("PodMonitorNotAvailable", message)]
    return []


def _pruned(situation: Situation, applied: Sequence[Manifest], tls: Certificates, stepped: Step) -> list[Action]:
    """Own children that the spec no longer has: a role that is gone, a policy that was switched off.

    Secrets stay while pods of an older revision may need them.
    """
    wanted = {key_of(manifest) for manifest in applied} | _kept(situation, tls)
    spared = (
        {"ControllerRevision"} if stepped.state.phase is RolloutPhase.COMPLETE else {"ControllerRevision", "Secret"}
    )
    return [
        Delete(child)
        for key, child in situation.children.items()
        if child.owner == situation.cluster.metadata.uid
        and not child.leaving
        and key not in wanted
        and key.kind not in spared
    ]


def _kept(situation: Situation, tls: Certificates) -> set[ObjectKey]:
    """Children that are made elsewhere: scalers of roles that scale, and certificates in use."""
    spec, metadata = situation.cluster.spec, situation.cluster.metadata
    scaling = [role for role, entry in spec.roles().items() if entry.scaling.mode is not ScalingMode.STATIC]
    kept = {ObjectKey("PDRoleScaler", metadata.namespace, group_name(metadata.name, role)) for role in scaling}
    return kept | {ObjectKey("Secret", metadata.namespace, name) for name in tls.kept}


def _numbers(situation: Situation, role: str, target: Target, shrunk: Shrink, stepped: Step) -> RoleNumbers:
    pods = situation.pods_of(role)
    limit = target.limited_by
    if situation.cluster.spec.paused:
        limit = Limit.PAUSED
    elif shrunk.replicas > target.effective:
        limit = Limit.ROLLOUT_FLOOR if stepped.stays[role] > target.effective else Limit.DRAINING
    return RoleNumbers(
        target=target,
        replicas=shrunk.replicas,
        existing=len(pods),
        ready=sum(pod.ready and not pod.leaving for pod in pods),
        updated=sum(pod.revision == stepped.state.target and not pod.leaving for pod in pods),
        draining=sum(pod.drain_uid == pod.uid for pod in pods),
        held=sum(is_empty(pod) for pod in pods),
        limited_by=limit,
    )


def _wake(
    situation: Situation,
    shrunk: Mapping[str, Shrink],
    stepped: Step,
    held: Sequence[StartDrain | NoteDrained],
    tls: Certificates,
) -> float | None:
    """When the next drain is out of time, or a certificate is due, which no event tells."""
    deadlines = [entry.deadline for entry in shrunk.values() if entry.deadline is not None]
    deadlines += [action.deadline for action in (*stepped.actions, *held) if isinstance(action, StartDrain)]
    if stepped.state.stalls_at is not None and stepped.state.stalls_at > situation.now:
        deadlines.append(stepped.state.stalls_at)
    waits = [max(deadline - situation.now, 0.05) for deadline in deadlines]
    return min([*waits, *([] if tls.wake_after is None else [tls.wake_after])], default=None)
