"""Events of a PDCluster: one when a condition changes its status, none when it only goes on. Pure.

Ready is True only when it is available, of one revision and not progressing: that it becomes so tells of these too.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pdcluster_operator.resources import EVENT, Manifest

COMPONENT = "pdcluster-operator"
IMPLIED = frozenset({"Available", "Progressing", "RevisionCoherent"})
"""What becomes so together with Ready, and is told in its event then."""
GOOD = {"Degraded": "False", "Progressing": "False"}
"""The status of a condition that is no warning, where that is not True."""


def transitions(cluster: Manifest, before: Iterable[Mapping[str, Any]], now: float) -> list[Manifest]:
    """An event for each condition in the cluster's status whose status is not as it was; a first one is no change."""
    old = {entry["type"]: entry["status"] for entry in before}
    changed = {
        entry["type"]: entry
        for entry in cluster["status"]["conditions"]
        if old.get(entry["type"], entry["status"]) != entry["status"]
    }
    is_ready = "Ready" in changed and changed["Ready"]["status"] == "True"
    implied = [entry for kind, entry in changed.items() if is_ready and kind in IMPLIED]
    own = [entry for entry in changed.values() if entry not in implied]
    return [_event(cluster, entry, implied if entry["type"] == "Ready" else [], now) for entry in own]


def _event(
    cluster: Manifest, condition: Mapping[str, Any], implied: Iterable[Mapping[str, Any]], now: float
) -> Manifest:
    kind = condition["type"]
    is_good = condition["status"] == GOOD.get(kind, "True") or kind == "Progressing"
    words = [condition["message"], *(_words(entry) for entry in implied)]
    text = f"{_words(condition)}: {', '.join(filter(None, words))}".removesuffix(": ")
    return told(cluster, kind, condition["reason"], text, now, is_good=is_good)


def _words(condition: Mapping[str, Any]) -> str:
    return f"{condition['type']} is {condition['status']}"


def told(cluster: Manifest, kind: str, reason: str, text: str, now: float, *, is_good: bool = True) -> Manifest:
    """An event of this cluster; `kind` and the time tell events apart."""
    metadata = cluster["metadata"]
    mark = hashlib.sha256(f"{metadata['uid']}{kind}{now}".encode()).hexdigest()[:16]
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"name": f"{metadata['name']}.{mark}", "namespace": metadata["namespace"]},
        "eventTime": datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": COMPONENT,
        "reportingInstance": COMPONENT,
        "action": "Reconcile",
        "type": "Normal" if is_good else "Warning",
        "reason": reason,
        "note": text[:1024],
        "regarding": {
            "apiVersion": cluster["apiVersion"],
            "kind": cluster["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
    }
