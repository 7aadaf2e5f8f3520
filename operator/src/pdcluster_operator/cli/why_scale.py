"""From what a role asks for to what it is given: autoscaler, scaler, and the operator's limits, in sentences. Pure."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from pdcluster_operator.cli.why_facts import Cause, Facts, Finding
from pdcluster_operator.crd.scaling import ScalingMode
from pdcluster_operator.crd.values import amount
from pdcluster_operator.desired import labels
from pdcluster_operator.resources import Manifest
from pdcluster_operator.scaling.policy import Limit, Target, bounds_of, request_of, targets


def targets_of(facts: Facts) -> dict[str, Target]:
    """What each role is given, by the operator's own rules."""
    spec = facts.cluster.spec
    requests = {}
    for role in spec.roles():
        scaler, live = facts.scalers.get(role), facts.stateful_sets.get(role)
        asked = scaler["spec"]["replicas"] if scaler else None
        number = live["spec"].get("replicas", 1) if live else None
        requests[role] = request_of(spec, role, asked, number, len(pods_of(facts, role)))
    return targets(requests, bounds_of(spec), spec.scaling_policy.max_gpus)


def pods_of(facts: Facts, role: str) -> list[Manifest]:
    return [pod for pod in facts.pods if pod["metadata"]["labels"].get(labels.ROLE) == role]


def asking(facts: Facts, target: Target) -> Iterable[Finding]:
    """Who asks for the number."""
    scaling = facts.cluster.spec.roles()[facts.role].scaling
    if scaling.mode is ScalingMode.STATIC:
        text = f"scaling.mode is Static: spec.{facts.role}.replicas asks for {target.desired}, and nobody else"
        yield Finding(Cause.STATIC, text, limits=False)
        return
    if facts.role not in facts.scalers:
        yield Finding(
            Cause.SCALER_MISSING, f"the PDRoleScaler {facts.group} does not exist yet: nobody can ask for pods"
        )
    else:
        text = f"the PDRoleScaler {facts.group} asks for {target.desired}"
        yield Finding(Cause.SCALER, text, limits=False)
    if facts.autoscaler is None:
        managed = scaling.mode is ScalingMode.MANAGED
        text = f"no HorizontalPodAutoscaler drives the PDRoleScaler {facts.group}"
        text += ": the operator makes one" if managed else ": it keeps the number that it was last given"
        yield Finding(Cause.AUTOSCALER_MISSING, text, limits=managed)
    else:
        yield from _autoscaler(facts.autoscaler)


def limiting(facts: Facts, found: dict[str, Target]) -> Iterable[Finding]:
    """Which of the operator's limits changed the number."""
    spec, target = facts.cluster.spec, found[facts.role]
    scaling, name = spec.roles()[facts.role].scaling, f"spec.{facts.role}.scaling"
    if target.limited_by is Limit.MIN:
        text = f"{name}.minReplicas is {scaling.min_replicas}: {target.desired} is raised to {target.effective}"
        yield Finding(Cause.MIN, text)
    elif target.limited_by is Limit.MAX:
        text = f"{name}.maxReplicas is {scaling.max_replicas}: {target.desired} is lowered to {target.effective}"
        yield Finding(Cause.MAX, text)
    elif target.limited_by is Limit.RATIO:
        yield Finding(Cause.RATIO, _ratio(facts, found))
    elif target.limited_by is Limit.GPU_BUDGET:
        held = sum(len(pods_of(facts, role)) * entry.gpu.count for role, entry in spec.roles().items())
        each = spec.roles()[facts.role].gpu.count
        text = (
            f"spec.scalingPolicy.maxGPUs is {spec.scaling_policy.max_gpus}, and existing pods, leaving ones included, "
            f"hold {held}: with {each} for each, {facts.role} gets {target.effective} of {target.desired} pods"
        )
        yield Finding(Cause.GPU_BUDGET, text)


def _ratio(facts: Facts, found: dict[str, Target]) -> str:
    bounds, target = bounds_of(facts.cluster.spec), found[facts.role]
    sides = [f"at least {bounds.low}"] * (bounds.low is not None) + [f"at most {bounds.high}"] * (
        bounds.high is not None
    )
    moved = "raised" if target.effective > target.desired else "lowered"
    other = "decode" if facts.role == "prefill" else "prefill"
    return (
        f"spec.scalingPolicy.ratio keeps prefill : decode {' and '.join(sides)}: "
        f"{target.desired} is {moved} to {target.effective}, beside {found[other].effective} {other} pods"
    )


def _autoscaler(autoscaler: Manifest) -> Iterable[Finding]:
    """What a HorizontalPodAutoscaler reads, wants, and is kept from."""
    name, spec, status = autoscaler["metadata"]["name"], autoscaler["spec"], autoscaler.get("status") or {}
    wanted = status.get("desiredReplicas")
    text = f"the HorizontalPodAutoscaler {name} has not worked out a number yet"
    if wanted is not None:
        span = f"between {spec.get('minReplicas', 1)} and {spec['maxReplicas']}"
        text = f"the HorizontalPodAutoscaler {name} wants {wanted}, {span}"
    yield Finding(Cause.AUTOSCALER, text, limits=False)
    yield from _metrics(spec.get("metrics") or [], status.get("currentMetrics") or [])
    for entry in status.get("conditions") or []:
        words = f"{entry.get('reason', '')}: {entry.get('message', '')}".strip()
        if entry["type"] in {"ScalingActive", "AbleToScale"} and entry["status"] == "False":
            yield Finding(Cause.AUTOSCALER_BROKEN, f"the HorizontalPodAutoscaler {name} does not scale: {words}")
        elif entry["type"] == "ScalingLimited" and entry["status"] == "True":
            yield Finding(Cause.AUTOSCALER_LIMITED, f"the HorizontalPodAutoscaler {name} is limited: {words}")
        elif entry["type"] == "AbleToScale" and "Stabilized" in str(entry.get("reason", "")):
            text = f"the HorizontalPodAutoscaler {name} waits: {words}"
            yield Finding(Cause.AUTOSCALER_LIMITED, text)


def _metrics(wanted: list[dict[str, Any]], current: list[dict[str, Any]]) -> Iterable[Finding]:
    """Each External metric: what it is for a replica, and what it should be."""
    for number, entry in enumerate(wanted):
        source = entry.get("external")
        if not source:
            continue
        metric, goal = source["metric"]["name"], source["target"].get("averageValue")
        told = current[number].get("external", {}).get("current", {}) if number < len(current) else {}
        value = told.get("averageValue")
        if value is None:
            yield Finding(Cause.METRIC, f"{metric} has not been read yet; the target is {_plain(goal)}", limits=False)
        else:
            text = f"{metric} is {_plain(value)} for each replica; the target is {_plain(goal)}"
            yield Finding(Cause.METRIC, text, limits=False)


def _plain(quantity: object) -> str:
    """`1500m` as 1.5; what is no quantity stays as it is."""
    try:
        number = amount(str(quantity))
    except (ArithmeticError, KeyError):
        return str(quantity)
    return f"{number.normalize():f}" if isinstance(number, Decimal) else str(number)
