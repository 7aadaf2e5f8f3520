"""Which pods of a role leave, and how far its StatefulSet may shrink. Pure.

A StatefulSet always removes its highest ordinals, so these are the ones that drain; it is lowered only past pods that
are empty, dead, or out of time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pdcluster_operator.observe import Pod
from pdcluster_operator.reconcile.situation import StartDrain, StopDrain


@dataclass(frozen=True, slots=True)
class Shrink:
    """What a role's StatefulSet is set to now, and what its pods are told."""

    replicas: int
    actions: tuple[StartDrain | StopDrain, ...]
    deadline: float | None = None
    """When the next pod goes in any case."""


def is_done(pod: Pod, drained: frozenset[str], now: float) -> bool:
    """Whether a pod may be removed: it holds no request, cannot hold one, or had its time."""
    if pod.leaving or pod.uid in drained or not pod.address:
        return True
    return pod.drain_uid == pod.uid and now >= pod.drain_deadline


def shrink(
    pods: Iterable[Pod],
    replicas: int,
    wanted: int,
    keep_draining: frozenset[str],
    drained: frozenset[str],
    now: float,
    timeout: float,
) -> Shrink:
    """From `replicas` to at least `wanted`. `keep_draining`: uids of pods that drain for another reason."""
    present = {pod.ordinal: pod for pod in pods}
    number = max(replicas, wanted)
    while number > wanted and _is_removable(present.get(number - 1), drained, now):
        number -= 1
    actions: list[StartDrain | StopDrain] = []
    deadlines = []
    for ordinal, pod in sorted(present.items(), reverse=True):
        if pod.leaving:
            continue
        draining = pod.drain_uid == pod.uid
        if ordinal >= wanted and ordinal < number:
            deadline = pod.drain_deadline if draining else now + timeout
            deadlines.append(deadline)
            actions.append(StartDrain(pod, deadline))
        elif ordinal < wanted and (draining or not pod.counted) and pod.uid not in keep_draining:
            actions.append(StopDrain(pod))
    return Shrink(number, tuple(actions), min(deadlines, default=None))


def _is_removable(pod: Pod | None, drained: frozenset[str], now: float) -> bool:
    """A pod that does not exist is no obstacle."""
    return pod is None or is_done(pod, drained, now)
