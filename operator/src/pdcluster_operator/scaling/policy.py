"""From what each role asks for to what it gets: bounds, ratio, GPU budget. Pure.

Each limit names itself in `limited_by`, so that a person can be told why nothing scales; the last one that changed the
number counts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from pdcluster_operator.crd.cluster import ClusterSpec
from pdcluster_operator.crd.scaling import Coordination, ScalingMode


class Limit(StrEnum):
    """Why a role has not what it asks for."""

    NONE = ""
    MIN = "Min"
    MAX = "Max"
    RATIO = "Ratio"
    GPU_BUDGET = "GPUBudget"
    ROLLOUT_FLOOR = "RolloutFloor"
    DRAINING = "Draining"
    PAUSED = "Paused"


@dataclass(frozen=True, slots=True)
class Request:
    """One role: what is asked for, what may be given, and what there is now."""

    desired: int
    least: int
    most: int
    gpus: int
    """Of one pod."""
    existing: int
    """Pods that hold GPUs now, leaving ones too."""


@dataclass(frozen=True, slots=True)
class Target:
    """One role's number: asked, given, and the limit between the two."""

    desired: int
    effective: int
    limited_by: Limit = Limit.NONE


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of prefill replicas divided by decode replicas; None: no bound."""

    low: Decimal | None = None
    high: Decimal | None = None

    def hold(self, prefill: int, decode: int) -> bool:
        """Without pods on either side there is no ratio to break."""
        if not prefill or not decode:
            return True
        ratio = Decimal(prefill) / Decimal(decode)
        return (self.low is None or ratio >= self.low) and (self.high is None or ratio <= self.high)


def bounds_of(spec: ClusterSpec) -> Bounds:
    """The ratio that the spec asks for; none when the roles are independent."""
    ratio, policy = spec.scaling_policy.ratio, spec.scaling_policy
    if ratio is None or policy.coordination is Coordination.INDEPENDENT:
        return Bounds()
    return Bounds(Decimal(ratio.min) if ratio.min else None, Decimal(ratio.max) if ratio.max else None)


def request_of(spec: ClusterSpec, role: str, asked: int | None, live: int | None, existing: int) -> Request:
    """`asked`: of the scaler, None when there is none; `live`: of the StatefulSet, None when there is none."""
    wanted = spec.roles()[role]
    if wanted.scaling.mode is ScalingMode.STATIC:
        number = wanted.replicas if wanted.replicas is not None else (1 if live is None else live)
        return Request(number, number, number, wanted.gpu.count, existing)
    number = asked if asked is not None else (live if live is not None else wanted.scaling.min_replicas)
    most = wanted.scaling.max_replicas or wanted.scaling.min_replicas
    return Request(number, wanted.scaling.min_replicas, most, wanted.gpu.count, existing)


def targets(requests: Mapping[str, Request], bounds: Bounds, budget: int | None) -> dict[str, Target]:
    """Every role's target; a role is never put below its least."""
    found = {role: _bounded(request) for role, request in requests.items()}
    if "prefill" in found and "decode" in found:
        found |= _in_ratio(requests, found, bounds)
    return found if budget is None else _in_budget(requests, found, budget)


def _bounded(request: Request) -> Target:
    if request.desired < request.least:
        return Target(request.desired, request.least, Limit.MIN)
    if request.desired > request.most:
        return Target(request.desired, request.most, Limit.MAX)
    return Target(request.desired, request.desired)


def _in_ratio(requests: Mapping[str, Request], found: Mapping[str, Target], bounds: Bounds) -> dict[str, Target]:
    """Raises the lower side as far as it may go, then lowers the higher one."""
    prefill, decode = found["prefill"].effective, found["decode"].effective
    if bounds.hold(prefill, decode):
        return dict(found)
    if bounds.high is not None and Decimal(prefill) > bounds.high * decode:
        decode = _raised(requests["decode"], decode, math.ceil(prefill / bounds.high))
        prefill = _lowered(requests["prefill"], prefill, math.floor(bounds.high * decode))
    elif bounds.low is not None and Decimal(prefill) < bounds.low * decode:
        prefill = _raised(requests["prefill"], prefill, math.ceil(bounds.low * decode))
        decode = _lowered(requests["decode"], decode, math.floor(prefill / bounds.low) if bounds.low else decode)
    return {
        **found,
        "prefill": _changed(found["prefill"], prefill, Limit.RATIO),
        "decode": _changed(found["decode"], decode, Limit.RATIO),
    }


def _raised(request: Request, number: int, wanted: int) -> int:
    return max(number, min(wanted, request.most))


def _lowered(request: Request, number: int, wanted: int) -> int:
    return min(number, max(wanted, request.least, 1))


def _changed(target: Target, number: int, limit: Limit) -> Target:
    return target if number == target.effective else replace(target, effective=number, limited_by=limit)


def _in_budget(requests: Mapping[str, Request], found: Mapping[str, Target], budget: int) -> dict[str, Target]:
    """Hands out the GPUs that no pod holds, one pod at a time, to the role that is furthest from its target."""
    spare = budget - sum(request.existing * request.gpus for request in requests.values())
    given = {role: min(target.effective, requests[role].existing) for role, target in found.items()}
    _take_back(requests, given, budget)
    while True:
        waiting = [
            role
            for role, target in found.items()
            if given[role] < target.effective and requests[role].gpus <= max(spare, 0)
        ]
        if not waiting:
            break
        role = min(waiting, key=lambda name: (given[name] / found[name].effective, list(found).index(name)))
        given[role] += 1
        spare -= requests[role].gpus
    return {role: _changed(target, given[role], Limit.GPU_BUDGET) for role, target in found.items()}


def _take_back(requests: Mapping[str, Request], given: dict[str, int], budget: int) -> None:
    """A budget that was lowered takes pods away again, from the role that is furthest above its least."""
    while sum(number * requests[role].gpus for role, number in given.items()) > budget:
        above = [role for role in given if requests[role].gpus and given[role] > requests[role].least]
        if not above:
            return
        role = max(above, key=lambda name: (given[name] / max(requests[name].least, 1), list(given).index(name)))
        given[role] -= 1
