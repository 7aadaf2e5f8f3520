"""A small PDCluster for tests, and what to wait for."""

from collections.abc import Callable
from typing import Any

from cel_table import edited
from cluster_client import Manifest

CLUSTER = "pdcluster.dev/v1alpha1/PDCluster"
SCALER = "pdcluster.dev/v1alpha1/PDRoleScaler"
STATEFUL_SET = "apps/v1/StatefulSet"


def cluster(**edit: Any) -> Manifest:
    """A small PDCluster named demo; keys of `edit` are paths with `__` for dots."""
    manifest = edited({"drain": {"timeoutSeconds": 1}, **{key.replace("__", "."): edit[key] for key in edit}})
    return {**manifest, "metadata": {"name": "demo"}}


def has_condition(kind: str, status: str, reason: str = "") -> Callable[[Manifest | None], bool]:
    def holds(found: Manifest | None) -> bool:
        entries = (found or {}).get("status", {}).get("conditions", [])
        return any(
            entry["type"] == kind and entry["status"] == status and reason in ("", entry["reason"]) for entry in entries
        )

    return holds


def replicas(number: int) -> Callable[[Manifest | None], bool]:
    return lambda found: found is not None and found["spec"]["replicas"] == number
