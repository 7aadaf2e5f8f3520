"""Lockstep: the pods of all roles move to a new revision one by one, drained first, without a spare GPU. Pure.

The whole state is in the objects: which revision each pod is marked with, which pod is draining, and each StatefulSet's
partition. A partition is lowered only to the ordinal of a pod that is empty, and raised only when its StatefulSet has
settled on one revision; otherwise it stays as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.observe import Pod, WorkloadFacts
from pdcluster_operator.reconcile.drain import is_done
from pdcluster_operator.reconcile.situation import Rollout, RolloutPhase, StartDrain


@dataclass(frozen=True, slots=True)
class RolePods:
    """One role as a rollout sees it: its StatefulSet, and its pods by ordinal. `wanted` may be less than there are."""

    facts: WorkloadFacts
    pods: tuple[Pod, ...]
    wanted: int

    def present(self) -> tuple[Pod, ...]:
        """Pods that stay."""
        return tuple(pod for pod in self.pods if not pod.leaving and pod.ordinal < self.wanted)

    def outdated(self, target: str) -> tuple[Pod, ...]:
        """Pods that stay and are not of the target, the highest first."""
        old = [pod for pod in self.present() if pod.revision != target]
        return tuple(sorted(old, key=lambda pod: pod.ordinal, reverse=True))

    def is_whole(self, target: str) -> bool:
        """Every pod exists, and those of the target are ready: the next may be taken down."""
        present = self.present()
        return len(present) >= self.wanted and all(pod.ready or pod.revision != target for pod in present)


@dataclass(frozen=True, slots=True)
class Step:
    """This turn's partitions by role, the drains to begin or to go on with, and where the rollout stands."""

    partitions: Mapping[str, int]
    actions: tuple[StartDrain, ...]
    state: Rollout
    leaving: frozenset[str] = frozenset()
    """The uids of the pods that are being replaced, drained or not."""


def step(
    roles: Mapping[str, RolePods],
    target: str,
    *,
    paused: bool,
    drained: frozenset[str],
    now: float,
    timeout: float,
    stalled: bool,
) -> Step:
    """The next step towards every pod being of the target revision."""
    held = {name: _at_rest(role, target) for name, role in roles.items()}
    waiting = {name: role.outdated(target) for name, role in roles.items()}
    state = _state(roles, waiting, target, paused=paused, stalled=stalled)
    if state.phase in {RolloutPhase.COMPLETE, RolloutPhase.PAUSED}:
        return Step(held, (), state)
    actions, partitions = [], dict(held)
    candidates = _candidates(roles, waiting, target)
    for name, pod in candidates:
        if is_done(pod, drained, now) and roles[name].facts.template_revision == target:
            partitions[name] = min(partitions[name], pod.ordinal)
        else:
            draining = pod.drain_uid == pod.uid
            actions.append(StartDrain(pod, pod.drain_deadline if draining else now + timeout))
    return Step(partitions, tuple(actions), state, frozenset(pod.uid for _, pod in candidates))


def _at_rest(role: RolePods, target: str) -> int:
    """Where a partition stays without a step: above every ordinal as soon, and as long, as nothing is half done."""
    facts = role.facts
    if facts.template_revision != target:
        return HELD
    settled = facts.settled and facts.current_revision == facts.update_revision
    return HELD if settled and not role.outdated(target) else facts.partition


def _candidates(
    roles: Mapping[str, RolePods], waiting: Mapping[str, tuple[Pod, ...]], target: str
) -> list[tuple[str, Pod]]:
    """The pods to be replaced next: one, or one of each pair when there is only one of each."""
    draining = [(name, pods[0]) for name, pods in waiting.items() if pods and pods[0].drain_uid == pods[0].uid]
    if draining and not _is_single_pair(roles):
        return draining[:1]
    if not all(role.is_whole(target) for role in roles.values()):
        return draining
    left = [name for name, pods in waiting.items() if pods]
    if _is_single_pair(roles):
        return [(name, waiting[name][0]) for name in left if name in {"prefill", "decode"}] or [
            (name, waiting[name][0]) for name in left[:1]
        ]
    order = list(roles)
    name = min(left, key=lambda entry: (_share(roles[entry], target), -roles[entry].wanted, order.index(entry)))
    return [(name, waiting[name][0])]


def _share(role: RolePods, target: str) -> float:
    """How much of a role is done."""
    return 1 - len(role.outdated(target)) / max(role.wanted, 1)


def _is_single_pair(roles: Mapping[str, RolePods]) -> bool:
    """One prefill and one decode pod, and nobody else to serve while they are replaced."""
    pair = [roles[name].wanted for name in ("prefill", "decode") if name in roles]
    return pair == [1, 1] and not ("mixed" in roles and roles["mixed"].wanted)


def _state(
    roles: Mapping[str, RolePods],
    waiting: Mapping[str, tuple[Pod, ...]],
    target: str,
    *,
    paused: bool,
    stalled: bool,
) -> Rollout:
    total = sum(role.wanted for role in roles.values())
    outdated = sum(len(pods) for pods in waiting.values())
    missing = sum(max(role.wanted - len(role.present()), 0) for role in roles.values())
    old = [pods[-1].revision for pods in waiting.values() if pods]
    if not outdated:
        return Rollout(RolloutPhase.COMPLETE, target, target, total - missing, total)
    phase = RolloutPhase.PAUSED if paused else RolloutPhase.STALLED if stalled else RolloutPhase.ROLLING
    return Rollout(phase, target, old[0], total - outdated - missing, total, gap=_is_single_pair(roles))
