"""One role as a rollout sees it: its StatefulSet, its pods by ordinal, and what may be done to them. Pure.

A StatefulSet makes pods below its partition from the current revision and the others from the update's, and removes the
highest ordinals: every rule here follows from these two.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pdcluster_operator.desired.kubernetes import HELD
from pdcluster_operator.observe import Pod, WorkloadFacts


@dataclass(frozen=True, slots=True)
class RolePods:
    """`wanted`: how many pods the role should have; `target`: the revision that they should be of."""

    facts: WorkloadFacts
    pods: tuple[Pod, ...]
    wanted: int
    target: str

    @property
    def is_switched(self) -> bool:
        """The StatefulSet makes new pods of the target, from its partition on."""
        return self.facts.template_revision == self.target

    @property
    def is_settled(self) -> bool:
        """Its controller knows of one revision only: no partition makes a difference."""
        return self.facts.settled and self.facts.current_revision == self.facts.update_revision

    @property
    def base(self) -> int:
        """Where the partition stays without a step: raised only when nothing is half done, or for growth."""
        if not self.is_switched:
            return HELD
        if self.is_settled and all(pod.revision == self.target for pod in self._living()):
            return HELD
        return self._for_growth() if self.wanted > self.facts.replicas else self.facts.partition

    @property
    def stay(self) -> int:
        """How many pods the role has for now: while it rolls, one above the partition at least stays to serve."""
        live, base = self.facts.replicas, self.base
        if base == HELD or base >= live:
            return self.wanted
        fresh = {pod.ordinal for pod in self._living() if pod.ready and pod.revision == self.target}
        whole = fresh.issuperset(range(base, live))
        return max(self.wanted, base + 1 if whole else live)

    def present(self) -> tuple[Pod, ...]:
        """Pods that stay."""
        limit = min(self.stay, self.facts.replicas)
        return tuple(pod for pod in self._living() if pod.ordinal < limit)

    def outdated(self) -> tuple[Pod, ...]:
        """Pods that stay and are not of the target, the highest first."""
        old = [pod for pod in self.present() if pod.revision != self.target]
        return tuple(sorted(old, key=lambda pod: pod.ordinal, reverse=True))

    def released(self) -> tuple[Pod, ...]:
        """Outdated pods that the StatefulSet's controller is about to replace."""
        return tuple(pod for pod in self.outdated() if pod.ordinal >= self.base)

    def is_scaling(self) -> bool:
        """The StatefulSet has another number of pods than those that stay, which no lower partition may meet.

        Pods that are about to go would be replaced instead, and new ones would not be of the revision that serves.
        """
        return self.facts.replicas != self.stay

    def is_whole(self) -> bool:
        """No pod is on its way to the target or out: the next may be taken down."""
        by_ordinal = {pod.ordinal: pod for pod in self.pods}
        limit = min(self.stay, self.facts.replicas)
        return all(self._is_fine(ordinal, by_ordinal.get(ordinal)) for ordinal in range(limit))

    def serving(self, gone: str = "") -> set[str]:
        """The revisions of pods that serve, or would if their drain were taken back, without the one with that uid."""
        return {pod.revision for pod in self.present() if pod.serves and pod.uid != gone}

    def is_short(self) -> bool:
        """A pod that stays does not serve, or is not there, but may be later."""
        ready = sum(pod.ready for pod in self.present())
        return ready < self.stay

    def share(self) -> float:
        """How much of the role is done."""
        return 1 - len(self.outdated()) / max(self.stay, 1)

    def _living(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if not pod.leaving)

    def _is_fine(self, ordinal: int, pod: Pod | None) -> bool:
        """What the partition has released must be there, ready and of the target; of the others, only the target's."""
        if pod is None:
            return ordinal < self.base
        if pod.leaving:
            return False
        if pod.revision == self.target:
            return pod.serves
        return ordinal < self.base

    def _for_growth(self) -> int:
        """New pods are of the revision that serves until the target has shown that it comes up."""
        if any(pod.ready and pod.revision == self.target for pod in self._living()):
            return self.facts.partition
        if any(pod.template == self.facts.current_revision for pod in self._living()):
            return HELD
        return min(self.facts.partition, self.facts.replicas)


def serves(roles: Mapping[str, RolePods], gone: str = "") -> bool:
    """Whether a pair of one revision, or a mixed pod, takes requests, without the one with that uid."""
    return _is_pair({name: role.serving(gone) for name, role in roles.items()})


def may_shrink(roles: Mapping[str, RolePods]) -> bool:
    """Whether a pair serves after what the roles give up, if one does before: revisions need their own pair."""
    after, before = {}, {}
    for name, role in roles.items():
        ready = [pod for pod in role.pods if pod.serves and not pod.leaving]
        before[name] = {pod.revision for pod in ready}
        after[name] = {pod.revision for pod in ready if pod.ordinal < role.wanted}
    is_mixture = len(set().union(*before.values())) > 1
    return not is_mixture or _is_pair(after) or not _is_pair(before)


def _is_pair(revisions: Mapping[str, set[str]]) -> bool:
    pair = revisions.get("prefill", set()) & revisions.get("decode", set())
    return bool(pair or revisions.get("mixed"))
