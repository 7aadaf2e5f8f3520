"""The revision: which worker pods may be told apart by what they run.

It covers what the user wrote, never rendered bytes, and leaves out what is at its default: so a new version of the
operator, with new fields, gives an unchanged cluster its old revision and restarts nothing.
"""

import hashlib
import json

from pdcluster_operator.crd.cluster import ClusterSpec, PDCluster

POD_FIELDS = {
    "model",
    "engine",
    "prefill",
    "decode",
    "mixed",
    "transport",
    "tls",
    "security",
    "topology",
    "observability",
}
ROLE_FIELDS_OUTSIDE = {"replicas", "scaling"}
LENGTH = 10


def pod_spec(spec: ClusterSpec) -> dict[str, object]:
    """The part of the spec that decides what worker pods are, without defaults."""
    outside = dict.fromkeys(("prefill", "decode", "mixed"), ROLE_FIELDS_OUTSIDE)
    return spec.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include=POD_FIELDS, exclude={**outside, **_NOT_IN_PODS}
    )


_NOT_IN_PODS = {"security": {"network_policy", "allow_from"}, "observability": {"pod_monitor"}}


def revision_of(cluster: PDCluster) -> str:
    """Ten hex digits; equal for equal pods."""
    text = json.dumps(pod_spec(cluster.spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
