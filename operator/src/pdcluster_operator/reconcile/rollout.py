"""Lockstep: the pods of all roles move to a new revision one by one, drained first, without a spare GPU. Pure.

The whole state is in the objects: which revision each pod is marked with, which pod is draining, and each StatefulSet's
partition. A partition is lowered only to the ordinal of a pod that is empty.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.observe import Pod
from pdcluster_operator.reconcile.drain import is_done
from pdcluster_operator.reconcile.roles import RolePods, serves
from pdcluster_operator.reconcile.situation import Rollout, RolloutPhase, StartDrain

Candidate = tuple[str, Pod]
"""A role, and its pod that is replaced next."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a rollout besides its pods. `deadline`: seconds without progress until it counts as stalled."""

    paused: bool
    drained: frozenset[str]
    now: float
    timeout: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Step:
    """This turn's partitions and numbers of pods by role, the drains to begin or to go on with, and where it stands."""

    partitions: Mapping[str, int]
    stays: Mapping[str, int]
    actions: tuple[StartDrain, ...]
    state: Rollout
    leaving: frozenset[str] = frozenset()
    """The uids of the pods that are being replaced, drained or not."""


def step(roles: Mapping[str, RolePods], target: str, terms: Terms) -> Step:
    """The next step towards every pod being of the target revision."""
    partitions = {name: role.base for name, role in roles.items()}
    stays = {name: role.stay for name, role in roles.items()}
    released = [(name, pod) for name, role in roles.items() for pod in role.released()]
    candidates = [] if terms.paused else _candidates(roles, terms)
    state = _state(roles, target, candidates, terms)
    actions = []
    is_empty = {pod.uid: is_done(pod, terms.drained, terms.now) for _, pod in candidates}
    for name, pod in candidates:
        if not is_empty[pod.uid]:
            draining = pod.drain_uid == pod.uid
            actions.append(StartDrain(pod, pod.drain_deadline if draining else terms.now + terms.timeout))
        elif all(is_empty.values()) and roles[name].is_switched:
            partitions[name] = min(partitions[name], pod.ordinal)
    leaving = frozenset(pod.uid for _, pod in (*candidates, *released))
    return Step(partitions, stays, tuple(actions), state, leaving)


def _candidates(roles: Mapping[str, RolePods], terms: Terms) -> list[Candidate]:
    """The pods to be replaced next: one, or one of each when there is only one of each."""
    waiting = [(name, pod) for name, role in roles.items() if (pod := _next(role))]
    if is_single_pair(roles):
        return _single_pair(waiting, terms)
    if not all(role.is_whole() for role in roles.values()):
        return []
    free = [(name, pod) for name, pod in waiting if _may_go(roles, name, pod)]
    if not free and any(role.is_short() for role in roles.values()):
        return []
    pool = free or waiting
    draining = [(name, pod) for name, pod in pool if pod.drain_uid == pod.uid]
    return sorted(draining or pool, key=lambda entry: _urgency(roles, *entry))[:1]


def _next(role: RolePods) -> Pod | None:
    """The highest of the pods that the partition still keeps as they are."""
    kept = [pod for pod in role.outdated() if pod.ordinal < role.base]
    return kept[0] if kept and not role.is_scaling() else None


def _urgency(roles: Mapping[str, RolePods], name: str, pod: Pod) -> tuple[bool, float, int, int]:
    """First who serves nothing, then the role that is behind, then the larger one."""
    return pod.ready, roles[name].share(), -roles[name].wanted, list(roles).index(name)


def _single_pair(waiting: list[Candidate], terms: Terms) -> list[Candidate]:
    """Prefill drains first, then decode; both are replaced together."""
    pair = [entry for entry in waiting if entry[0] in {"prefill", "decode"}]
    busy = [entry for entry in pair if entry[0] == "prefill" and not is_done(entry[1], terms.drained, terms.now)]
    return busy or pair or waiting[:1]


def _may_go(roles: Mapping[str, RolePods], name: str, pod: Pod) -> bool:
    """Unless a role has only one pod, somebody must be left to serve, if anybody does now."""
    if roles[name].wanted <= 1 or not pod.ready:
        return True
    return serves(roles, gone=pod.uid) or not serves(roles)


def is_single_pair(roles: Mapping[str, RolePods]) -> bool:
    """One prefill and one decode pod, and nobody else to serve while they are replaced."""
    pair = [roles[name].stay for name in ("prefill", "decode") if name in roles]
    return pair == [1, 1] and not ("mixed" in roles and roles["mixed"].wanted)


def _has_gap(roles: Mapping[str, RolePods]) -> bool:
    """Nobody takes over from the only pod of a role while it is replaced."""
    mixed = roles.get("mixed")
    if mixed and mixed.wanted:
        return len(roles) == 1 and mixed.stay == 1
    return any(role.stay == 1 for role in roles.values())


def _state(roles: Mapping[str, RolePods], target: str, candidates: list[Candidate], terms: Terms) -> Rollout:
    total = sum(role.stay for role in roles.values())
    outdated = [pod for role in roles.values() for pod in reversed(role.outdated())]
    updated = sum(len(role.present()) for role in roles.values()) - len(outdated)
    if not outdated and all(role.base == HELD for role in roles.values()):
        return Rollout(RolloutPhase.COMPLETE, target, target, updated, total, stalls_at=_gives_up_at(roles, terms))
    current = outdated[0].revision if outdated else target
    if terms.paused and outdated:
        return Rollout(RolloutPhase.PAUSED, target, current, updated, total)
    stalls_at = _stalls_at(roles, candidates, terms)
    phase = RolloutPhase.ROLLING if stalls_at is None or terms.now < stalls_at else RolloutPhase.STALLED
    return Rollout(phase, target, current, updated, total, gap=_has_gap(roles), stalls_at=stalls_at)


def _gives_up_at(roles: Mapping[str, RolePods], terms: Terms) -> float | None:
    """Outside a rollout: the deadline of pods that are there and not ready, the last of them."""
    waiting = [pod.changed for role in roles.values() for pod in role.present() if not pod.ready]
    return terms.deadline + max(waiting) if waiting else None


def _stalls_at(roles: Mapping[str, RolePods], candidates: list[Candidate], terms: Terms) -> float | None:
    """The deadline of what is waited for; None while the next step is under way, which has its own."""
    moving = (candidates, *(not role.is_switched or role.is_scaling() for role in roles.values()))
    if any(moving):
        return None
    changed = [role.facts.changed for role in roles.values()]
    return terms.deadline + max([*changed, *(pod.changed for role in roles.values() for pod in role.pods)])
