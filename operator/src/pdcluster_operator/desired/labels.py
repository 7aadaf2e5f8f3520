"""Labels and annotations of what the operator makes. Selectors are fixed for good: a StatefulSet's cannot change."""

from collections.abc import Mapping

from pdcluster_operator.crd.cluster import GROUP

CLUSTER = f"{GROUP}/cluster"
ROLE = f"{GROUP}/role"
REVISION = f"{GROUP}/revision"
COUNTED = f"{GROUP}/counted"
"""On every pod; a drain removes it, so that an autoscaler no longer counts the pod."""

DRAIN_UID = f"{GROUP}/drain-uid"
"""Annotation of a draining pod: which pod it is, so that a new one of the same name is not taken for it."""
DRAIN_DEADLINE = f"{GROUP}/drain-deadline"
"""Annotation of a draining pod: when it goes even with requests left, in seconds of Unix time."""
DRAIN = f"{GROUP}/drain"
"""Annotation by which a person asks that a pod be drained and kept out of service: its uid, as `pdc drain` does."""
DRAINED = f"{GROUP}/drained"
"""Annotation of a pod that was drained on request and is empty: how often its container had been restarted then."""
ADOPT = f"{GROUP}/adopt"
"""Annotation by which a user hands an object of a child's name to the PDCluster that it names."""

MADE_FOR = f"{GROUP}/made-for"
"""Annotation of the operator's own Secrets: the uid of their PDCluster, by which one without owner is known again."""
ROTATION = f"{GROUP}/rotation"
"""Annotation of an authority's Secret: how far its rotation is."""
ROTATION_SINCE = f"{GROUP}/rotation-since"
"""Annotation of an authority's Secret: since when, in seconds of Unix time."""

RESTARTED = "kubectl.kubernetes.io/restartedAt"
"""Annotation of a pod template that `kubectl rollout restart` sets. Of workers it is empty, and the operator's field:
what sets it is undone like any other edit, since a StatefulSet would replace pods that nobody has drained."""

MANAGED_BY = "app.kubernetes.io/managed-by"
OPERATOR = "pdcluster-operator"

IDENTITY = frozenset({CLUSTER, ROLE, REVISION, COUNTED, MANAGED_BY})
"""What a pod template overlay cannot change."""


def common(cluster: str) -> dict[str, str]:
    """On every child."""
    return {CLUSTER: cluster, MANAGED_BY: OPERATOR}


def selector(cluster: str, role: str) -> dict[str, str]:
    """What picks the pods of a role, of any revision."""
    return {CLUSTER: cluster, ROLE: role}


def of_pod(cluster: str, role: str, revision: str) -> dict[str, str]:
    """On every pod of a role."""
    return {**common(cluster), ROLE: role, REVISION: revision, COUNTED: "true"}


def selector_text(labels: Mapping[str, str]) -> str:
    """As in `kubectl get -l`."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
