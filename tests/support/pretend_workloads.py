"""StatefulSets and their pods in memory, by the real controller's rules for Parallel pods and a partition.

A pod below the partition is made from the current revision, any other from the update's; outdated pods from the
partition on are deleted one by one, the highest first, and only while those above are ready; what exceeds `replicas` is
deleted at once; the update becomes current when every pod is of it and ready.
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pdcluster_operator.desired import labels

Manifest = dict[str, Any]
HASH = "controller-revision-hash"


def revision_name(stateful_set: Manifest) -> str:
    """The controller's name for a template: equal ones have equal names."""
    text = json.dumps(stateful_set["spec"]["template"], sort_keys=True)
    return f"{stateful_set['metadata']['name']}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def is_ready(pod: Manifest) -> bool:
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", []))


def _hash(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"][HASH])


def is_leaving(pod: Manifest) -> bool:
    return "deletionTimestamp" in pod["metadata"]


@dataclass
class Workloads:
    """`stuck`: pods that never get ready, by name or by revision label. `now` is the time in Unix seconds."""

    now: Callable[[], float]
    is_empty: Callable[[str], bool]
    """Whether the pod with that uid has been drained."""
    stuck: set[str] = field(default_factory=set)
    pods: dict[str, Manifest] = field(default_factory=dict)
    templates: dict[str, Manifest] = field(default_factory=dict)
    undrained: list[str] = field(default_factory=list)
    """Pods that a controller deleted although they were neither empty nor out of time."""
    gaps: list[str] = field(default_factory=list)
    """Pods of roles with others, deleted for an update although then nobody served any more."""
    strangers: list[str] = field(default_factory=list)
    """Pods made of a revision that is neither wanted nor run by any other pod."""
    counter: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    def observe(self, entry: Manifest) -> bool:
        """The controller takes notice of a new spec."""
        status, name = entry["status"], revision_name(entry)
        self.templates[name] = entry["spec"]["template"]
        known = (status.get("observedGeneration"), status.get("updateRevision"))
        status.setdefault("currentRevision", name)
        status |= {"updateRevision": name, "observedGeneration": entry["metadata"]["generation"]}
        return known != (entry["metadata"]["generation"], name)

    def sync(self, entry: Manifest) -> bool:
        """One look of the controller at one StatefulSet; whether it did anything."""
        moved = self.observe(entry) or self._scale(entry) or self._update(entry) or self._complete(entry)
        if moved:
            entry["metadata"]["resourceVersion"] = str(next(self.counter))
        return moved

    def kubelet(self, name: str) -> bool:
        """A pod that leaves goes, a pod that starts becomes ready, unless it is stuck."""
        pod = self.pods[name]
        if is_leaving(pod):
            del self.pods[name]
            return True
        marks = pod["metadata"]["labels"]
        if is_ready(pod) or self.stuck & {name, marks.get(labels.REVISION)}:
            return False
        self.set_ready(name, "True")
        return True

    def set_ready(self, name: str, status: str) -> None:
        stamp = datetime.fromtimestamp(self.now(), UTC).isoformat()
        condition = {"type": "Ready", "status": status, "lastTransitionTime": stamp}
        self.pods[name]["status"]["conditions"] = [condition]

    def start(self, name: str, template: Manifest, revision: str) -> None:
        """A new pod, not ready yet."""
        marks = {**template["metadata"]["labels"], HASH: revision}
        stamp = datetime.fromtimestamp(self.now(), UTC).isoformat()
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{next(self.counter)}", "labels": marks}
        metadata |= {"creationTimestamp": stamp, "resourceVersion": str(next(self.counter))}
        self.pods[name] = {"kind": "Pod", "metadata": metadata, "status": {"podIP": "127.1.0.1"}}

    def of(self, entry: Manifest) -> dict[int, Manifest]:
        """A StatefulSet's pods by ordinal."""
        found = {}
        for name, pod in self.pods.items():
            group, _, ordinal = name.rpartition("-")
            if group == entry["metadata"]["name"]:
                found[int(ordinal)] = pod
        return found

    def serves(self, without: str = "") -> bool:
        """Whether ready pods of one revision make a pair, or a mixed pod is ready."""
        ready = [pod for pod in self.pods.values() if is_ready(pod) and not is_leaving(pod)]
        found: dict[str, set[str]] = {}
        for pod in ready:
            marks = pod["metadata"]["labels"]
            if pod["metadata"]["name"] != without and marks.get(labels.REVISION):
                found.setdefault(marks[labels.ROLE], set()).add(marks[labels.REVISION])
        return bool(found.get("mixed") or found.get("prefill", set()) & found.get("decode", set()))

    def _scale(self, entry: Manifest) -> bool:
        spec, status, pods = entry["spec"], entry["status"], self.of(entry)
        partition = spec["updateStrategy"]["rollingUpdate"]["partition"]
        missing = [ordinal for ordinal in range(spec["replicas"]) if ordinal not in pods]
        for ordinal in missing:
            revision = status["currentRevision"] if ordinal < partition else status["updateRevision"]
            if pods and revision not in {status["updateRevision"], *map(_hash, self.pods.values())}:
                self.strangers.append(f"{entry['metadata']['name']}-{ordinal}")
            self.start(f"{entry['metadata']['name']}-{ordinal}", self.templates[revision], revision)
        excess = [pods[ordinal] for ordinal in pods if ordinal >= spec["replicas"] and not is_leaving(pods[ordinal])]
        for pod in excess:
            self._delete(pod)
        return bool(missing or excess)

    def _update(self, entry: Manifest) -> bool:
        spec, pods = entry["spec"], self.of(entry)
        for ordinal in reversed(range(spec["updateStrategy"]["rollingUpdate"]["partition"], spec["replicas"])):
            pod = pods[ordinal]
            if _hash(pod) != entry["status"]["updateRevision"] and not is_leaving(pod):
                name = pod["metadata"]["name"]
                if spec["replicas"] > 1 and self.serves() and not self.serves(without=name):
                    self.gaps.append(name)
                self._delete(pod)
                return True
            if not is_ready(pod) or is_leaving(pod):
                return False
        return False

    def _complete(self, entry: Manifest) -> bool:
        spec, status, pods = entry["spec"], entry["status"], self.of(entry)
        fine = [
            is_ready(pod) and not is_leaving(pod) and _hash(pod) == status["updateRevision"] for pod in pods.values()
        ]
        if len(fine) != spec["replicas"] or not all(fine) or status["currentRevision"] == status["updateRevision"]:
            return False
        status["currentRevision"] = status["updateRevision"]
        return True

    def _delete(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        notes = metadata.get("annotations", {})
        marked = notes.get(labels.DRAIN_UID) == metadata["uid"]
        in_time = self.now() < float(notes.get(labels.DRAIN_DEADLINE) or "inf")
        if not marked or (in_time and not self.is_empty(metadata["uid"])):
            self.undrained.append(metadata["name"])
        metadata["deletionTimestamp"] = datetime.fromtimestamp(self.now(), UTC).isoformat()
