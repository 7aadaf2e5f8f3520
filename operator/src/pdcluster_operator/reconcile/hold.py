"""Pods that a person has asked to be drained: emptied, and kept out of service until resumed or replaced. Pure.

The request is an annotation with the pod's own uid, so that it ends with the pod. What came of it is an annotation too:
how often the pod's container had been restarted when it was empty, since a restarted worker takes requests again.
"""

from collections.abc import Iterable

from pdcluster_operator.observe import Pod
from pdcluster_operator.reconcile.drain import is_done
from pdcluster_operator.reconcile.situation import NoteDrained, StartDrain


def hold(pods: Iterable[Pod], drained: frozenset[str], now: float, timeout: float) -> list[StartDrain | NoteDrained]:
    """What is done for the requests now. A pod that is not ready takes no requests: it is drained when it does."""
    asked = [pod for pod in pods if pod.is_held and pod.ready and not pod.leaving]
    return [_next(pod, drained, now, timeout) for pod in asked if not is_empty(pod)]


def is_empty(pod: Pod) -> bool:
    """Whether a request is fulfilled, by the process that runs now."""
    return pod.is_held and pod.drain_uid == pod.uid and pod.emptied == str(pod.restarts)


def _next(pod: Pod, drained: frozenset[str], now: float, timeout: float) -> StartDrain | NoteDrained:
    if pod.emptied:
        return StartDrain(pod, now + timeout, afresh=True)
    if pod.drain_uid != pod.uid:
        return StartDrain(pod, now + timeout)
    return NoteDrained(pod) if is_done(pod, drained, now) else StartDrain(pod, pod.drain_deadline)
