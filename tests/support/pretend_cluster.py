"""A pretended cluster for decide(): objects in memory, and the controllers of `pretend_workloads`.

Every `turn` decides on what there is and carries it out; every `tick` lets each controller and the kubelet look once.
"""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from cel_table import edited
from pretend_workloads import Workloads, is_leaving, is_ready

from pdcluster_operator import own_authority
from pdcluster_operator.cache import Cache
from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.kubernetes import owner_of
from pdcluster_operator.desired.kubernetes_network import Origin
from pdcluster_operator.desired.kubernetes_pod import Release
from pdcluster_operator.kube import FIELD_MANAGER
from pdcluster_operator.observe import Pod
from pdcluster_operator.reconcile.decide import decide
from pdcluster_operator.reconcile.rotation import DEFAULT_PERIODS, Periods
from pdcluster_operator.reconcile.situation import (
    Adopt,
    Apply,
    Create,
    Decision,
    Delete,
    IssueCertificates,
    NoteDrained,
    Situation,
    StartDrain,
    StopDrain,
    TurnAuthority,
)
from pdcluster_operator.resources import ObjectKey, key_of

Manifest = dict[str, Any]

KEY = ("default", "demo")


@dataclass
class PretendCluster:
    """`drain_seconds`: how long a pod needs to become empty; None: for ever."""

    spec: Manifest
    worker_image: str = "release:1"
    drain_seconds: float | None = 0
    now: float = 1_767_225_600.0
    objects: dict[ObjectKey, Manifest] = field(default_factory=dict)
    cache: Cache = field(default_factory=Cache)
    generation: int = 1
    since: dict[str, float] = field(default_factory=dict)
    """Since when a pod drains, by uid."""
    told: set[str] = field(default_factory=set)
    """The pods whose drain this operator has begun, or gone on with: it forgets them when it restarts."""
    writes: int = 0
    periods: Periods = DEFAULT_PERIODS
    user_certificate: CertificateFacts | None = None
    absent: set[str] = field(default_factory=set)
    linked: dict[str, bool] = field(default_factory=dict)
    on_apply: Callable[[Manifest, Manifest], None] = lambda old, new: None
    """Sees every StatefulSet before and after it is applied."""
    workloads: Workloads = field(init=False)

    def __post_init__(self) -> None:
        self.workloads = Workloads(lambda: self.now, self._is_empty)

    @property
    def pods(self) -> dict[str, Manifest]:
        return self.workloads.pods

    @property
    def undrained(self) -> list[str]:
        return self.workloads.undrained

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
            drained=frozenset(uid for uid in self.told if self._is_empty(uid)),
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
        self.carry_out(decision, crash_after)
        return decision

    def carry_out(self, decision: Decision, crash_after: int | None = None) -> None:
        """The actions in order; one that was decided on an older version of its object ends the turn."""
        for action in decision.actions[:crash_after]:
            if not self._carry_out(action):
                return

    def restart(self) -> None:
        """The operator forgets what it heard."""
        self.told.clear()

    def settle(self, turns: int = 200) -> Decision:
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
        moved = [self.workloads.sync(entry) for key, entry in self.objects.items() if key.kind == "StatefulSet"]
        moved += [self._control_router(entry) for key, entry in self.objects.items() if key.kind == "Deployment"]
        moved += [self.workloads.kubelet(name) for name in list(self.pods)]
        return any(moved)

    def stateful_set(self, role: str) -> Manifest:
        return self.objects[ObjectKey("StatefulSet", "default", f"demo-{role}")]

    def revisions(self, role: str) -> list[str]:
        """The revision of each pod of a role, by ordinal."""
        found = [pod for pod in self.pods.values() if pod["metadata"]["labels"][labels.ROLE] == role]
        found.sort(key=lambda pod: int(pod["metadata"]["name"].rpartition("-")[2]))
        return [pod["metadata"]["labels"].get(labels.REVISION, "") for pod in found]

    def ready(self, role: str) -> int:
        found = [pod for pod in self.pods.values() if pod["metadata"]["labels"][labels.ROLE] == role]
        return sum(is_ready(pod) and not is_leaving(pod) for pod in found)

    def scale(self, role: str, number: int) -> None:
        """As an autoscaler would."""
        self.objects[ObjectKey("PDRoleScaler", "default", f"demo-{role}")]["spec"]["replicas"] = number

    def _is_empty(self, uid: str) -> bool:
        began = self.since.get(uid)
        return began is not None and self.drain_seconds is not None and self.now - began >= self.drain_seconds

    def _carry_out(self, action: Any) -> bool:
        """Whether it was done."""
        self.writes += 1
        match action:
            case Apply(manifest) | Create(manifest):
                old = self.objects.get(key_of(manifest))
                version = action.version if isinstance(action, Apply) else None
                if version and (old is None or old["metadata"]["resourceVersion"] != version):
                    return False
                self._store(manifest, applied=isinstance(action, Apply))
            case Delete(child):
                del self.objects[child.key]
                for name in [name for name in self.pods if name.startswith(f"{child.key.name}-")]:
                    del self.pods[name]
            case NoteDrained(pod):
                self._mark(pod, {labels.DRAINED: str(pod.restarts)}, None)
            case StartDrain(pod, deadline, afresh):
                notes = {labels.DRAIN_UID: pod.uid, labels.DRAIN_DEADLINE: str(deadline), labels.DRAINED: None}
                if afresh:
                    self.since.pop(pod.uid, None)
                if self._mark(pod, notes, None):
                    self.since.setdefault(pod.uid, self.now)
                    self.told.add(pod.uid)
            case StopDrain(pod):
                notes = {labels.DRAIN_UID: None, labels.DRAIN_DEADLINE: None, labels.DRAINED: None}
                self._mark(pod, notes, "true")
                self.since.pop(pod.uid, None)
                self.told.discard(pod.uid)
            case Adopt(child):
                self.objects[child.key]["metadata"]["ownerReferences"] = [owner_of(self.cluster)]
            case IssueCertificates(roles, is_first):
                if is_first:
                    self._store(own_authority.made(self.cluster, self.periods, self.now), applied=True)
                for role in roles:
                    leaf = own_authority.leaf(self.cluster, role, self.authority, self.periods, self.now)
                    self._store(leaf, applied=True)
            case TurnAuthority(turn):
                turned = own_authority.turned(self.cluster, self.authority, turn, self.periods, self.now)
                self._store(turned, applied=True)
        return True

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
        counter, generation = self.workloads.counter, old["metadata"]["generation"] + 1 if old else 1
        metadata = stored["metadata"]
        metadata |= {"uid": old["metadata"]["uid"] if old else f"uid-{next(counter)}"}
        metadata |= {"resourceVersion": str(next(counter)), "generation": generation}
        if applied:
            stamp = datetime.fromtimestamp(self.now, UTC).isoformat()
            entry = {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": _fields(manifest), "time": stamp}
            metadata["managedFields"] = [entry]
        stored["status"] = old.get("status", {}) if old else {}
        self.objects[key] = stored
        if key.kind == "StatefulSet" and old:
            self.on_apply(old, stored)

    def _mark(self, pod: Pod, notes: dict[str, str | None], counted: str | None) -> bool:
        """Of that very pod; whether it is there."""
        metadata = self.pods.get(pod.name, {}).get("metadata", {})
        if metadata.get("uid") != pod.uid:
            return False
        metadata["annotations"] = {k: v for k, v in {**metadata.get("annotations", {}), **notes}.items() if v}
        metadata["labels"] = {k: v for k, v in {**metadata["labels"], labels.COUNTED: counted}.items() if v}
        return True

    def _control_router(self, entry: Manifest) -> bool:
        if any(name.startswith("demo-router-") for name in self.pods):
            return False
        self.workloads.start("demo-router-x", entry["spec"]["template"], "")
        self.pods["demo-router-x"]["metadata"]["labels"].pop(labels.REVISION, None)
        self.workloads.set_ready("demo-router-x", "True")
        return True


def shuffled(situation: Situation, seed: int) -> Situation:
    """The same, told in another order."""
    chance = random.Random(seed)
    children, pods = list(situation.children.items()), list(situation.pods)
    chance.shuffle(children)
    chance.shuffle(pods)
    return replace(situation, children=dict(children), pods=tuple(pods))


def _fields(node: Any) -> Manifest:
    """FieldsV1 of everything in a manifest; lists are atomic, which is enough here."""
    if not isinstance(node, dict):
        return {}
    return {f"f:{key}": _fields(value) for key, value in node.items()}
