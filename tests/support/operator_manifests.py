"""Manifests for the operator's tests: the smallest one, and edits of it by path."""

import copy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "manifests" / "samples"
TINY = ROOT / "tests" / "golden" / "ernie45-tiny"
REMOVE = object()

SMALLEST: dict[str, Any] = {
    "apiVersion": "pdcluster.dev/v1alpha1",
    "kind": "PDCluster",
    "metadata": {"name": "demo"},
    "spec": {
        "model": {"name": "ernie-tiny", "source": {"hostPath": {"path": "./models/ernie45-tiny"}}},
        "prefill": {"replicas": 2, "gpu": {"count": 0}},
        "decode": {"replicas": 2, "gpu": {"count": 0}},
        "transport": {"kv": {"protocol": "IPC"}},
    },
}


def edited(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The smallest manifest with the values at dotted paths replaced; REMOVE takes one away."""
    document = copy.deepcopy(SMALLEST)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = document
        for step in parents:
            place = place.setdefault(step, {})
        if value is REMOVE:
            place.pop(last)
        else:
            place[last] = copy.deepcopy(value)
    return document


def sample_files() -> list[Path]:
    """Samples that are PDClusters, by name."""
    return [path for path in sorted(SAMPLES.glob("*.yaml")) if "kind: PDCluster\n" in path.read_text()]
