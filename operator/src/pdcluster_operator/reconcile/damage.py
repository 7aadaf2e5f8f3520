"""What others did to a cluster that the operator cannot undo: it is told, as reasons of Degraded. Pure."""

from collections.abc import Mapping
from typing import Any

from pdcluster_operator.observe import WorkloadFacts, blocking_finalizers
from pdcluster_operator.reconcile.situation import Situation, Trouble
from pdcluster_operator.refusals import reason_of


def damages(situation: Situation) -> list[Trouble]:
    """Pods that are refused, and objects that somebody's finalizer keeps from going."""
    return [*_refused(situation), *_stuck(situation)]


def deletion_blocked(manifest: Mapping[str, Any]) -> Trouble | None:
    """Why a PDCluster that is deleted does not go; None when nobody but Kubernetes itself holds it."""
    held = blocking_finalizers(manifest["metadata"])
    if not held:
        return None
    return Trouble("DeletionBlocked", f"the PDCluster is deleted, and waits for finalizers: {', '.join(held)}")


def _refused(situation: Situation) -> list[Trouble]:
    """One entry for each reason, with the words that came with its first workload."""
    found: dict[str, Trouble] = {}
    for key, child in sorted(situation.children.items()):
        if not isinstance(child.facts, WorkloadFacts) or child.owner != situation.cluster.metadata.uid:
            continue
        words = child.facts.failure or situation.unmade.get(child.uid, "")
        if words and not child.leaving:
            reason = reason_of(words, "PodsRefused")
            found.setdefault(reason, Trouble(reason, f"{key.kind} {key.name} gets no pods: {words}"))
    return list(found.values())


def _stuck(situation: Situation) -> list[Trouble]:
    held = [
        (f"{key.kind} {key.name}", child.held)
        for key, child in situation.children.items()
        if child.owner == situation.cluster.metadata.uid and child.leaving and child.held
    ]
    held += [(f"Pod {pod.name}", pod.held) for pod in situation.pods if pod.leaving and pod.held]
    if not held:
        return []
    told = "; ".join(f"{name} ({', '.join(finalizers)})" for name, finalizers in sorted(held))
    return [Trouble("FinalizerStuck", f"is deleted, and waits for finalizers of others: {told}")]
