"""When news of a status is written: at once what somebody acts on, in one write later what only counts up to it.

Pods of a cluster start one by one; each one's number is no write of its own. `Unsaid` is the one writer of since when
news waits: an operator that is restarted meanwhile lets it wait anew.
"""

from collections.abc import Mapping
from typing import Any

from pdcluster_operator.observe import ClusterKey
from pdcluster_operator.pace import stretched

COUNT_SECONDS = 10.0
"""So long may counts in a status lag behind the pods; the last one comes with the condition that it makes true."""
AVAILABLE_SECONDS = 5.0
"""So long is waited for the other pods once one of each role serves: mostly all come together."""
CROWD = 50
"""With more clusters than so many that have news which may wait, it waits longer in proportion: when all come up at
once, each is still told of in few writes."""
COUNTS = frozenset({"replicas", "ready", "updated"})
"""What of a role's entry only counts pods."""
COMING = frozenset({"RouterNotReady", "NoReadyPair", "ReplicasUpdating", "ModelLoading", "RouterUpdating"})
"""Reasons that follow one another while pods start."""
AT_ONCE = ("observedGeneration", "currentRevision", "targetRevision", "endpoint")
SCALER_AT_ONCE = ("effectiveReplicas", "limitedBy")


def patience(before: Mapping[str, Any], told: Mapping[str, Any]) -> float:
    """For how many seconds the news of a PDCluster's status may wait, from when it is first known."""
    if any(before.get(name) != told.get(name) for name in AT_ONCE) or _phase(before) != _phase(told):
        return 0.0
    if _numbers(before) != _numbers(told):
        return 0.0
    old, new = _verdicts(before), _verdicts(told)
    changed = {kind for kind in old.keys() | new.keys() if old.get(kind) != new.get(kind)}
    if changed == {"Available"} and new["Available"][0] == "True":
        return AVAILABLE_SECONDS
    return 0.0 if changed else COUNT_SECONDS


def patience_of_scaler(before: Mapping[str, Any], told: Mapping[str, Any]) -> float:
    """Of a PDRoleScaler's; an autoscaler does nothing before it has the first one."""
    if not before:
        return AVAILABLE_SECONDS
    return 0.0 if any(before.get(name) != told.get(name) for name in SCALER_AT_ONCE) else COUNT_SECONDS


def _phase(status: Mapping[str, Any]) -> str:
    return str(status.get("rollout", {}).get("phase", ""))


def _numbers(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The roles' entries without their counts."""
    roles = status.get("roles") or []
    return [{name: value for name, value in role.items() if name not in COUNTS} for role in roles]


def _verdicts(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Each condition's status, and its reason unless that only tells which pods are still to come."""
    return {
        entry["type"]: (entry["status"], "" if entry["reason"] in COMING else entry["reason"])
        for entry in status.get("conditions") or []
    }


class Unsaid:
    """Since when each cluster has news that may wait, by whose status it is for and by how long such news may."""

    def __init__(self) -> None:
        self._since: dict[ClusterKey, dict[tuple[str, float], float]] = {}

    def left(self, key: ClusterKey, whose: str, seconds: float, now: float) -> float:
        """For how long news that may wait so many seconds still waits; not above 0: it is to be told now."""
        since = self._since.setdefault(key, {}).setdefault((whose, seconds), now)
        return since + stretched(seconds, len(self._since), CROWD) - now

    def told(self, key: ClusterKey, whose: str) -> None:
        """This status says all that there is to say."""
        since = self._since.get(key, {})
        for entry in [entry for entry in since if entry[0] == whose]:
            del since[entry]
        if not since:
            self.forget(key)

    def forget(self, key: ClusterKey) -> None:
        """All is told, or nobody is left to tell it of."""
        self._since.pop(key, None)
