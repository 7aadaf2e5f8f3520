"""A pretended cluster for decide(): objects in memory, and a StatefulSet controller that keeps the real one's rules.

Every `turn` decides on what there is and carries it out; every `tick` lets the controllers do one thing each.
"""

import copy
import itertools
from dataclasses import dataclass, field
from typing import Any

from cel_table import edited

from pdcluster_operator import own_authority
from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes_network import Origin
from pdcluster_operator.desired.kubernetes_pod import Release
from pdcluster_operator.kube import FIELD_MANAGER
from pdcluster_operator.observe import Cache
from pdcluster_operator.reconcile.decide import decide
from pdcluster_operator.reconcile.rotation import DEFAULT_PERIODS, Periods
from pdcluster_operator.reconcile.situation import (
    Apply,
    Create,
    Decision,
    Delete,
    IssueCertificates,
    Situation,
    StartDrain,
    StopDrain,
    TurnAuthority,
)
from pdcluster_operator.resources import ObjectKey, key_of

Manifest = dict[str, Any]

KEY = ("default", "demo")
TIME = "2026-01-01T00:00:00+00:00"


@dataclass
class PretendCluster:
    """`drain_seconds`: how long a pod needs to become empty; None: for ever. `slow`: pods that never get ready."""

    spec: Manifest
    worker_image: str = "release:1"
    drain_seconds: float | None = 0
    slow: set[str] = field(default_factory=set)
    now: float = 1_767_225_600.0
    objects: dict[ObjectKey, Manifest] = field(default_factory=dict)
    pods: dict[str, Manifest] = field(default_factory=dict)
    cache: Cache = field(default_factory=Cache)
    generation: int = 1
    undrained: list[str] = field(default_factory=list)
    """Pods that the controller removed although nobody had drained them."""
    since: dict[str, float] = field(default_factory=dict)
    writes: int = 0
    periods: Periods = DEFAULT_PERIODS
    user_certificate: CertificateFacts | None = None
    absent: set[str] = field(default_factory=set)
    linked: dict[str, bool] = field(default_factory=dict)
    _counter: Any = field(default_factory=lambda: itertools.count(100))

    def edit(self, **changes: Any) -> None:
        """Changes the user's spec; keys are paths with `__` for dots."""
        self.spec = edited({key.replace("__", "."): changes[key] for key in changes}, {"spec": self.spec})["spec"]
        self.generation += 1

    def situation(self) -> Situation:
        self.cache = Cache()
        for manifest in self.objects.values():
            self.cache.put(manifest["kind"], manifest)
        for pod in self.pods.values():
            self.cache.put("Pod", pod)
        view = self.cache.view(KEY)
        return Situation(
            cluster=self.cluster,
            children=dict(view.children),
            pods=tuple(view.pods.values()),
            drained=frozenset(self._empty_pods()),
            now=self.now,
            release=Release(self.worker_image),
            origin=Origin("pdcluster-system"),
            periods=self.periods,
            user_certificate=self.user_certificate,
            absent=frozenset(self.absent),
            linked=self.linked,
        )

    def turn(self, crash_after: int | None = None) -> Decision:
        """With `crash_after`, only so many actions are carried out, as if the operator were killed then."""
        decision = decide(self.situation())
        for action in decision.actions[:crash_after]:
            self._carry_out(action)
        return decision

    def settle(self, turns: int = 60) -> Decision:
        """Turns and ticks until nothing is to be done any more; AssertionError when that does not come."""
        for _ in range(turns):
            decision = self.turn()
            moved = self.tick()
            self.now += 1
            if not decision.actions and not moved:
                return decision
        raise AssertionError(f"not settled: {decision}")

    def tick(self) -> bool:
        """What the controllers of a real cluster would do next; whether they did anything."""
        moved = [self._control(key, entry) for key, entry in list(self.objects.items()) if key.kind == "StatefulSet"]
        moved += [self._control_router(entry) for key, entry in self.objects.items() if key.kind == "Deployment"]
        return any(moved)

    def stateful_set(self, role: str) -> Manifest:
        return self.objects[ObjectKey("StatefulSet", "default", f"demo-{role}")]

    def revisions(self, role: str) -> list[str]:
        """The revision of each pod of a role, by ordinal."""
        found = [pod for pod in self.pods.values() if pod["metadata"]["labels"][labels.ROLE] == role]
        found.sort(key=lambda pod: int(pod["metadata"]["name"].rpartition("-")[2]))
        return [pod["metadata"]["labels"].get(labels.REVISION, "") for pod in found]

    def ready(self, role: str) -> int:
        return sum(_is_ready(pod) for pod in self.pods.values() if pod["metadata"]["labels"][labels.ROLE] == role)

    def scale(self, role: str, number: int) -> None:
        """As an autoscaler would."""
        self.objects[ObjectKey("PDRoleScaler", "default", f"demo-{role}")]["spec"]["replicas"] = number

    def _empty_pods(self) -> list[str]:
        if self.drain_seconds is None:
            return []
        return [uid for uid, since in self.since.items() if self.now - since >= self.drain_seconds]

    def _carry_out(self, action: Any) -> None:
        self.writes += 1
        match action:
            case Apply(manifest) | Create(manifest):
                self._store(manifest, applied=isinstance(action, Apply))
            case Delete(child):
                del self.objects[child.key]
                self.pods = {n: p for n, p in self.pods.items() if not n.startswith(f"{child.key.name}-")}
            case StartDrain(pod, deadline):
                self._mark(pod.name, {labels.DRAIN_UID: pod.uid, labels.DRAIN_DEADLINE: str(deadline)}, None)
                self.since.setdefault(pod.uid, self.now)
            case StopDrain(pod):
                self._mark(pod.name, {labels.DRAIN_UID: None, labels.DRAIN_DEADLINE: None}, "true")
                self.since.pop(pod.uid, None)
            case IssueCertificates(roles, is_first):
                if is_first:
                    self._store(own_authority.made(self.cluster, self.periods, self.now), applied=True)
                for role in roles:
                    leaf = own_authority.leaf(self.cluster, role, self.authority, self.periods, self.now)
                    self._store(leaf, applied=True)
            case TurnAuthority(turn):
                turned = own_authority.turned(self.cluster, self.authority, turn, self.periods, self.now)
                self._store(turned, applied=True)

    @property
    def authority(self) -> Manifest:
        return self.objects[ObjectKey("Secret", "default", "demo-ca")]

    @property
    def cluster(self) -> PDCluster:
        metadata = {"name": "demo", "namespace": "default", "uid": "cluster-uid", "generation": self.generation}
        whole = {"apiVersion": "pdcluster.dev/v1alpha1", "kind": "PDCluster", "metadata": metadata, "spec": self.spec}
        return parse(whole)

    def _store(self, manifest: Manifest, *, applied: bool) -> None:
        key, old = key_of(manifest), self.objects.get(key_of(manifest))
        stored = copy.deepcopy(manifest)
        metadata = stored["metadata"]
        metadata |= {"uid": old["metadata"]["uid"] if old else f"uid-{next(self._counter)}"}
        metadata |= {"resourceVersion": str(next(self._counter)), "generation": 1}
        if applied:
            entry = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": _fields(manifest)}
            metadata["managedFields"] = [entry]
        stored["status"] = old.get("status", {}) if old else {}
        if key.kind == "StatefulSet":
            template = _revision(stored)
            stored["status"] = {"currentRevision": template, **stored["status"], "updateRevision": template}
            stored["status"]["observedGeneration"] = 1
        self.objects[key] = stored

    def _mark(self, name: str, notes: dict[str, str | None], counted: str | None) -> None:
        metadata = self.pods[name]["metadata"]
        metadata["annotations"] = {k: v for k, v in {**metadata.get("annotations", {}), **notes}.items() if v}
        metadata["labels"] = {k: v for k, v in {**metadata["labels"], labels.COUNTED: counted}.items() if v}

    def _control(self, key: ObjectKey, entry: Manifest) -> bool:
        """As the real one: pods below the partition keep to the current revision, others get the update's."""
        spec, status = entry["spec"], entry["status"]
        partition = spec["updateStrategy"]["rollingUpdate"]["partition"]
        names = [f"{key.name}-{ordinal}" for ordinal in range(spec["replicas"])]
        excess = [name for name in self.pods if name.rpartition("-")[0] == key.name and name not in names]
        for name in sorted(excess, reverse=True)[:1]:
            self._remove(name)
            return True
        for ordinal, name in enumerate(names):
            if name not in self.pods:
                revision = status["currentRevision"] if ordinal < partition else status["updateRevision"]
                self._start(name, spec["template"], revision)
                return True
        waking = [name for name in names if not _is_ready(self.pods[name]) and name not in self.slow]
        if waking:
            self.pods[waking[0]]["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
            return True
        for ordinal in reversed(range(partition, spec["replicas"])):
            if self.pods[names[ordinal]]["metadata"]["labels"][labels.REVISION] != status["updateRevision"]:
                self._remove(names[ordinal])
                return True
        updated = all(
            self.pods[name]["metadata"]["labels"][labels.REVISION] == status["updateRevision"] for name in names
        )
        changed = updated and all(map(_is_ready, (self.pods[name] for name in names)))
        if changed and status["currentRevision"] != status["updateRevision"]:
            status["currentRevision"] = status["updateRevision"]
            return True
        return False

    def _control_router(self, entry: Manifest) -> bool:
        if any(name.startswith("demo-router-") for name in self.pods):
            return False
        self._start("demo-router-x", entry["spec"]["template"], "")
        self.pods["demo-router-x"]["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        return True

    def _start(self, name: str, template: Manifest, revision: str) -> None:
        marks = {**template["metadata"]["labels"], **({labels.REVISION: revision} if revision else {})}
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{next(self._counter)}", "labels": marks}
        metadata |= {"creationTimestamp": TIME, "resourceVersion": str(next(self._counter))}
        self.pods[name] = {"kind": "Pod", "metadata": metadata, "status": {"podIP": "127.1.0.1"}}

    def _remove(self, name: str) -> None:
        metadata = self.pods.pop(name)["metadata"]
        if metadata.get("annotations", {}).get(labels.DRAIN_UID) != metadata["uid"]:
            self.undrained.append(name)
        self.since.pop(metadata["uid"], None)


def _is_ready(pod: Manifest) -> bool:
    return bool(pod["status"].get("conditions"))


def _revision(stateful_set: Manifest) -> str:
    return str(stateful_set["spec"]["template"]["metadata"]["labels"][labels.REVISION])


def _fields(node: Any) -> Manifest:
    """FieldsV1 of everything in a manifest; lists are atomic, which is enough here."""
    if not isinstance(node, dict):
        return {}
    return {f"f:{key}": _fields(value) for key, value in node.items()}
