"""The revision: which worker pods may be told apart by what they run.

It covers what the user wrote, never rendered bytes, and leaves out what is at its default: so a new version of the
operator, with new fields, gives an unchanged cluster its old revision and restarts nothing.
"""

import hashlib
import json
from typing import Any

from pdcluster_operator.crd.cluster import ClusterSpec, PDCluster

LENGTH = 10
POD_FIELDS = {
    "model",
    "engine",
    "prefill",
    "decode",
    "mixed",
    "transport",
    "tls",
    "drain",
    "security",
    "topology",
    "observability",
}
_ROLE_OUTSIDE = {"replicas", "scaling"}
OUTSIDE = {
    "prefill": _ROLE_OUTSIDE,
    "decode": _ROLE_OUTSIDE,
    "mixed": _ROLE_OUTSIDE,
    "security": {"network_policy", "allow_from"},
    "observability": {"pod_monitor"},
}
"""Fields that change no pod."""


def pod_spec(spec: ClusterSpec) -> dict[str, Any]:
    """The part of the spec that decides what worker pods are, without defaults."""
    found = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=POD_FIELDS, exclude=OUTSIDE)
    roles = set(spec.roles())
    return {name: value for name, value in found.items() if value or name in roles}


def revision_of(cluster: PDCluster) -> str:
    """Ten hex digits; equal for equal pods."""
    text = json.dumps(pod_spec(cluster.spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
