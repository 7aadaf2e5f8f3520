"""What the operator tells about a PDCluster: conditions, numbers, columns. Pure.

A condition's transition time moves only when its status does, so that an unchanged cluster has an unchanged status, and
an unchanged status is not written.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pdcluster_operator.crd.scaling import ScalingMode
from pdcluster_operator.crd.transport import KVProtocol
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_autoscaler import reason_of
from pdcluster_operator.desired.naming import ROUTER, group_name
from pdcluster_operator.observe import AutoscalerFacts, ScalerFacts
from pdcluster_operator.reconcile.situation import Decision, RoleNumbers, RolloutPhase, Situation, Trouble
from pdcluster_operator.scaling.policy import bounds_of

Manifest = dict[str, Any]
Verdict = tuple[str, bool | None, str, str]
"""Type, status, reason and message of a condition; no status: unknown."""

STATUS = {True: "True", False: "False", None: "Unknown"}
AS_WANTED = "AsWanted"
HARMLESS = {"PodMonitorNotAvailable"}
"""Reasons of Degraded that keep nothing from becoming ready."""
NAMED_PODS = 3
"""So many pods are named in a message, the others counted."""
NAMED_TROUBLES = 4
"""So many troubles are told at once; the first is the reason."""
LONGEST_MESSAGE = 8192
IMAGE_TROUBLES = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName"}


def status_of(situation: Situation, decision: Decision, previous: Mapping[str, Any]) -> Manifest:
    """The whole status of a PDCluster."""
    cluster = situation.cluster
    spec, generation = cluster.spec, cluster.metadata.generation
    prefill, decode = decision.roles.get("prefill"), decision.roles.get("decode")
    limited = [entry.limited_by.value for entry in decision.roles.values() if entry.limited_by]
    summary = {name: f"{entry.ready}/{entry.replicas}" for name, entry in decision.roles.items()}
    ready, wanted = _router_pods(situation), spec.router.replicas
    gpus = {name: role.gpu.count for name, role in spec.roles().items()}
    verdicts = verdicts_of(situation, decision)
    return {
        "observedGeneration": generation,
        "currentRevision": decision.rollout.current,
        "targetRevision": decision.rollout.target,
        "endpoint": f"http://{group_name(cluster.metadata.name, ROUTER)}.{cluster.metadata.namespace}.svc",
        "summary": {**summary, "router": f"{ready}/{wanted}", "limitedBy": ", ".join(limited)},
        "gpus": {
            "requested": sum(entry.target.effective * gpus[name] for name, entry in decision.roles.items()),
            "existing": sum(entry.existing * gpus[name] for name, entry in decision.roles.items()),
        },
        "ratio": {"current": f"{prefill.replicas}:{decode.replicas}"} if prefill and decode else {},
        "roles": [_role(name, entry) for name, entry in decision.roles.items()],
        "rollout": {
            "phase": decision.rollout.phase.value,
            "updated": decision.rollout.updated,
            "total": decision.rollout.total,
        },
        "conditions": conditions(verdicts, previous.get("conditions") or [], generation, situation.now),
    }


def broken_status(manifest: Manifest, trouble: Trouble, previous: Mapping[str, Any], now: float) -> Manifest:
    """The status of a PDCluster that cannot be acted on."""
    generation = manifest["metadata"].get("generation", 0)
    verdicts = [("Degraded", True, trouble.reason, trouble.message), ("Ready", False, trouble.reason, trouble.message)]
    kept = {key: value for key, value in previous.items() if key not in {"conditions", "observedGeneration"}}
    found = conditions(verdicts, previous.get("conditions") or [], generation, now)
    return {**kept, "observedGeneration": generation, "conditions": found}


def scaler_status(situation: Situation, role: str, numbers: RoleNumbers, previous: Mapping[str, Any]) -> Manifest:
    """Of a PDRoleScaler; the number and the selector count the same pods: those that are not draining."""
    name = situation.cluster.metadata.name
    counted = [pod for pod in situation.pods_of(role) if pod.counted and not pod.leaving]
    selector = {**labels.selector(name, role), labels.COUNTED: "true"}
    return {
        "replicas": len(counted),
        "readyReplicas": sum(pod.ready for pod in counted),
        "effectiveReplicas": numbers.target.effective,
        "limitedBy": numbers.limited_by.value,
        "selector": labels.selector_text(selector),
    }


def verdicts_of(situation: Situation, decision: Decision) -> list[Verdict]:
    """Every condition, from what is and what is to be done."""
    available, progressing = _available(situation, decision), _progressing(situation, decision)
    degraded, coherent = _degraded(situation, decision), _coherent(decision)
    others = [_transport(situation), _scaling(situation), _ratio(situation, decision)]
    found = [available, progressing, degraded, coherent, *others]
    missing = [verdict for verdict in (available, coherent) if not verdict[1]]
    if progressing[1] or progressing[2] != AS_WANTED:
        missing.append(progressing)
    return [_ready(situation, decision, missing), *found]


def _ready(situation: Situation, decision: Decision, missing: list[Verdict]) -> Verdict:
    """With the reason that a person can do something about: a pod's own words, a refusal, else what is missing."""
    if not missing:
        return ("Ready", True, "AllReady", "")
    causes = [*_trouble(situation), *(entry for entry in decision.troubles if entry.reason not in HARMLESS)]
    if causes:
        return ("Ready", False, causes[0].reason, causes[0].message)
    return ("Ready", False, missing[0][2], missing[0][3])


def conditions(
    verdicts: Iterable[Verdict], previous: Iterable[Mapping[str, Any]], generation: int, now: float
) -> list[Manifest]:
    """Verdicts as conditions; what has not changed keeps its time."""
    old = {entry["type"]: entry for entry in previous}
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = []
    for kind, holds, reason, message in verdicts:
        status, before = STATUS[holds], old.get(kind, {})
        since = before.get("lastTransitionTime", stamp) if before.get("status") == status else stamp
        found.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": since,
                "observedGeneration": generation,
            }
        )
    return found


def _available(situation: Situation, decision: Decision) -> Verdict:
    """A ready router and a ready pair of one revision, or a ready mixed worker: pods that leave do not count."""
    if not _router_pods(situation):
        return ("Available", False, "RouterNotReady", "no router pod is ready")
    ready = {
        (pod.role, pod.revision) for pod in situation.pods if pod.ready and not pod.leaving and pod.uid != pod.drain_uid
    }
    revisions = {revision for _, revision in ready}
    pairs = any(("prefill", revision) in ready and ("decode", revision) in ready for revision in revisions)
    if pairs or any(role == "mixed" for role, _ in ready):
        return ("Available", True, "Serving", "")
    if decision.rollout.gap and decision.rollout.phase is RolloutPhase.ROLLING:
        message = "the only pod of a role is being replaced; the router queues"
        return ("Available", False, "SingleReplicaGap", message)
    return ("Available", False, "NoReadyPair", "no prefill and decode pods of one revision are both ready")


def _progressing(situation: Situation, decision: Decision) -> Verdict:
    rolling = decision.rollout
    if decision.pending_certificates:
        return ("Progressing", True, "CertificatesPending", decision.pending_certificates)
    if is_stalled(situation, decision):
        reason = "ProgressDeadlineExceeded" if rolling.phase is RolloutPhase.COMPLETE else "RolloutStalled"
        return ("Progressing", False, reason, _stall(situation, decision))
    if rolling.phase is RolloutPhase.ROLLING:
        message = f"{rolling.updated} of {rolling.total} pods are of revision {rolling.target}"
        return ("Progressing", True, "RollingOut", message)
    for name, entry in decision.roles.items():
        if entry.draining > entry.held:
            return ("Progressing", True, "Draining", f"{name}: {entry.draining - entry.held} pods are draining")
        if entry.existing != entry.target.effective or entry.replicas != entry.target.effective:
            message = f"{name}: {entry.existing} pods exist, {entry.target.effective} are wanted"
            return ("Progressing", True, "ReplicasUpdating", message)
        if entry.ready < entry.target.effective:
            waiting = f"{name}: {entry.ready} of {entry.target.effective} pods are ready"
            return ("Progressing", True, "Pending" if _trouble(situation) else "ModelLoading", waiting)
    missing = situation.cluster.spec.router.replicas - _router_pods(situation)
    if missing > 0:
        return ("Progressing", True, "RouterUpdating", f"router: {missing} more pods are wanted")
    return ("Progressing", False, AS_WANTED, "")


def is_stalled(situation: Situation, decision: Decision) -> bool:
    """Nothing has changed for longer than the rollout's deadline, and pods are missing still."""
    deadline = decision.rollout.stalls_at
    return deadline is not None and situation.now >= deadline


def _stall(situation: Situation, decision: Decision) -> str:
    seconds = situation.cluster.spec.rollout.progress_deadline_seconds
    unready = sorted(pod.name for pod in situation.pods if pod.role in decision.roles and not pod.ready)
    waited = f"nothing has changed for {seconds} s"
    return f"{waited}; not ready: {_few(unready)}" if unready else f"{waited}; pods are missing"


def _few(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = len(names) - NAMED_PODS
    return ", ".join(names[:NAMED_PODS]) + (f" and {more} more" if more > 0 else "")


def _degraded(situation: Situation, decision: Decision) -> Verdict:
    found = tuple(dict.fromkeys((*decision.troubles, *_trouble(situation))))
    if found:
        others = [f"{trouble.reason}: {trouble.message}" for trouble in found[1:NAMED_TROUBLES]]
        return ("Degraded", True, found[0].reason, "; ".join([found[0].message, *others])[:LONGEST_MESSAGE])
    if is_stalled(situation, decision):
        return ("Degraded", True, "ProgressDeadlineExceeded", _stall(situation, decision))
    return ("Degraded", False, AS_WANTED, "")


def _trouble(situation: Situation) -> list[Trouble]:
    """Why pods do not run, one entry for each reason."""
    found: dict[str, list[str]] = {}
    for pod in situation.pods:
        if pod.trouble and not pod.leaving:
            words = f"{pod.name}: {pod.trouble}: {pod.trouble_text}".removesuffix(": ")
            found.setdefault(_reason(pod.trouble), []).append(words)
    return [Trouble(reason, _few(sorted(pods))) for reason, pods in sorted(found.items())]


def _reason(trouble: str) -> str:
    if trouble in IMAGE_TROUBLES:
        return "ImageUnavailable"
    if trouble == "CrashLoopBackOff":
        return "PodsCrashing"
    if trouble == "CreateContainerConfigError":
        return "ConfigurationMissing"
    return "InsufficientCapacity" if trouble == "Unschedulable" else "PodsNotRunning"


def _coherent(decision: Decision) -> Verdict:
    rolling = decision.rollout
    if rolling.phase is RolloutPhase.COMPLETE:
        return ("RevisionCoherent", True, "OneRevision", "")
    message = f"pods of {rolling.current} and {rolling.target} exist side by side"
    reason = "Paused" if rolling.phase is RolloutPhase.PAUSED else "RollingOut"
    return ("RevisionCoherent", False, reason, message)


def _transport(situation: Situation) -> Verdict:
    """Whether every worker that ought to have a peer reaches one; unknown until one has told."""
    protocol = situation.cluster.spec.transport.kv.protocol
    lonely = sorted(pod.name for pod in situation.pods if situation.linked.get(pod.uid) is False)
    if lonely:
        message = f"no peer of the other role can be reached from {', '.join(lonely)}"
        return ("TransportReady", False, "NoReachablePeer", message)
    if protocol is KVProtocol.IPC:
        message = "pods of a cluster share no memory: TCP is used"
        return ("TransportReady", True, "IPCNotAvailable", message)
    if not situation.linked and situation.cluster.spec.prefill:
        return ("TransportReady", None, "NotTold", "no worker has told yet whether it reaches its peers")
    return ("TransportReady", True, protocol.value, "")


def _scaling(situation: Situation) -> Verdict:
    """Whether every role that scales has somebody who scales it."""
    spec, name = situation.cluster.spec, situation.cluster.metadata.name
    scaled = [role for role, entry in spec.roles().items() if entry.scaling.mode is not ScalingMode.STATIC]
    for role in scaled:
        found = situation.child("HorizontalPodAutoscaler", group_name(name, role))
        if found and isinstance(found.facts, AutoscalerFacts) and found.facts.reason:
            return ("ScalingActive", False, reason_of(found.facts.reason), f"{role}: {found.facts.message}")
        scaler = situation.child("PDRoleScaler", group_name(name, role))
        if scaler is None or not isinstance(scaler.facts, ScalerFacts):
            return ("ScalingActive", False, "ScalerMissing", f"{role}: the PDRoleScaler is being made")
    return ("ScalingActive", True, "Scaling" if scaled else "Static", "")


def _ratio(situation: Situation, decision: Decision) -> Verdict:
    """Whether the numbers that will be keep the ratio that the spec asks for."""
    numbers = {name: entry.target.effective for name, entry in decision.roles.items()}
    if bounds_of(situation.cluster.spec).hold(numbers.get("prefill", 0), numbers.get("decode", 0)):
        return ("RatioSatisfied", True, "WithinBounds", "")
    told = ", ".join(f"{number} {name}" for name, number in numbers.items())
    return ("RatioSatisfied", False, "OutOfBounds", f"{told} pods are out of the ratio that scalingPolicy asks for")


def _role(name: str, entry: RoleNumbers) -> Manifest:
    return {
        "name": name,
        "desired": entry.target.desired,
        "effective": entry.target.effective,
        "replicas": entry.existing,
        "ready": entry.ready,
        "updated": entry.updated,
        "draining": entry.draining,
        "limitedBy": entry.limited_by.value,
    }


def _router_pods(situation: Situation) -> int:
    return sum(pod.ready and not pod.leaving for pod in situation.pods_of(ROUTER))
