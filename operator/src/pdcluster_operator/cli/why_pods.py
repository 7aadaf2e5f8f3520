"""From the number that a role is given to pods that serve: what keeps pods from being made or started. Pure."""

import time
from collections.abc import Iterable, Mapping

from pdcluster_operator.cli.view import DrainState, drain_state, is_ready
from pdcluster_operator.cli.why_facts import Cause, Facts, Finding
from pdcluster_operator.cli.why_scale import pods_of
from pdcluster_operator.desired import labels
from pdcluster_operator.reconcile.situation import RolloutPhase
from pdcluster_operator.resources import Manifest
from pdcluster_operator.scaling.policy import Limit, Target


def moving(facts: Facts, target: Target) -> Iterable[Finding]:
    """Rollouts and drains that hold up the number."""
    status = facts.manifest.get("status") or {}
    told: Mapping[str, object] = next((e for e in status.get("roles") or [] if e["name"] == facts.role), {})
    rollout = status.get("rollout") or {}
    phase = rollout.get("phase", "")
    if told.get("limitedBy") == Limit.ROLLOUT_FLOOR:
        text = f"a rollout is under way: {facts.role} keeps pods that serve until it is over, then shrinks"
        yield Finding(Cause.ROLLOUT_FLOOR, f"{text} to {target.effective}")
    if phase in {RolloutPhase.ROLLING, RolloutPhase.STALLED, RolloutPhase.PAUSED}:
        done = f"{rollout.get('updated', 0)} of {rollout.get('total', 0)} pods are of {status.get('targetRevision')}"
        text = f"a rollout is {phase.lower()}: {done}"
        yield Finding(Cause.ROLLOUT, text, limits=phase == RolloutPhase.STALLED)
    yield from _drains(pods_of(facts, facts.role))


def _drains(pods: Iterable[Manifest]) -> Iterable[Finding]:
    for pod in pods:
        name, notes = pod["metadata"]["name"], pod["metadata"].get("annotations") or {}
        state, asked = drain_state(pod), notes.get(labels.DRAIN) == pod["metadata"]["uid"]
        if state is DrainState.DRAINED or (asked and state is DrainState.DRAINING):
            text = f"pod {name} is {state.value} on request, and counts as a pod: `pdc resume {name}` puts it back"
            yield Finding(Cause.HELD, text)
        elif state is DrainState.DRAINING:
            when = _clock(notes.get(labels.DRAIN_DEADLINE, ""))
            yield Finding(Cause.DRAINING, f"pod {name} is draining, until {when} at the latest")
        elif state is DrainState.ASKED:
            yield Finding(Cause.HELD, f"pod {name} is to be drained on request, once it is ready")


def starting(facts: Facts, target: Target) -> Iterable[Finding]:
    """Pods that are missing, pending, broken or still loading."""
    pods = [pod for pod in pods_of(facts, facts.role) if "deletionTimestamp" not in pod["metadata"]]
    live = facts.stateful_sets.get(facts.role)
    wanted = live["spec"].get("replicas", 1) if live else target.effective
    if len(pods) < wanted:
        refusals = list(_refusals(facts.events))
        missing = f"{wanted - len(pods)} of {wanted} pods do not exist yet"
        yield from refusals or [Finding(Cause.MISSING_PODS, missing)]
    for pod in pods:
        if not is_ready(pod):
            yield _unready(pod)


def _refusals(events: Iterable[Manifest]) -> Iterable[Finding]:
    """The latest words of the StatefulSet's controller."""
    failed = [entry for entry in events if entry.get("reason") == "FailedCreate"]
    words = [str(entry.get("note") or entry.get("message") or "") for entry in failed]
    for text in words[-1:]:
        cause = Cause.QUOTA if "exceeded quota" in text else Cause.POD_REFUSED
        yield Finding(cause, f"the API server refuses a pod: {text}")


def _unready(pod: Manifest) -> Finding:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for entry in status.get("conditions") or []:
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            words = f"{entry.get('reason', '')}: {entry.get('message', '')}".strip(": ")
            return Finding(Cause.UNSCHEDULABLE, f"pod {name} has no node: {words}")
    for entry in (*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])):
        waiting = entry.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            words = f"{waiting['reason']}: {waiting.get('message', '')}".strip(": ")
            return Finding(Cause.NOT_RUNNING, f"pod {name} does not run: {words}")
    return Finding(Cause.LOADING, f"pod {name} is starting: its model is not loaded yet")


def _clock(deadline: str) -> str:
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(deadline)))
    except ValueError:
        return "an unknown time"
