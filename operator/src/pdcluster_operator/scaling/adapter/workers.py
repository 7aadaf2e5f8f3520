"""Which workers there are, from the pods' watch, its only writer. Sums are over those that `serving` gives."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pdcluster_operator.desired import labels
from pdcluster_operator.observe import condition
from pdcluster_operator.plan.site import METRICS_PORT
from pdcluster_operator.resources import Manifest
from pdcluster_operator.scaling.adapter.selector import Wanted

ROLES = ("prefill", "decode", "mixed")
SELECTOR = f"{labels.MANAGED_BY}={labels.OPERATOR},{labels.CLUSTER},{labels.ROLE} in ({','.join(ROLES)})"
"""The pods that are watched: workers, and neither routers nor anybody else's."""


class Group(NamedTuple):
    """The workers whose gauges are summed."""

    namespace: str
    cluster: str
    role: str


@dataclass(frozen=True, slots=True)
class Worker:
    """One pod."""

    uid: str
    name: str
    group: Group
    address: str
    port: int
    serves: bool
    """Ready, not draining and not leaving: its gauges count."""

    @property
    def url(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{self.port}/metrics"


def worker_of(pod: Manifest) -> Worker:
    """The facts of a pod that has the labels of SELECTOR."""
    metadata, status = pod["metadata"], pod.get("status", {})
    marks = metadata["labels"]
    address = status.get("podIP", "")
    counted = marks.get(labels.COUNTED) == "true" and "deletionTimestamp" not in metadata
    return Worker(
        uid=metadata["uid"],
        name=metadata["name"],
        group=Group(metadata["namespace"], marks[labels.CLUSTER], marks[labels.ROLE]),
        address=address,
        port=_port(pod),
        serves=bool(address) and counted and condition(status, "Ready") == "True",
    )


def _port(pod: Manifest) -> int:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("name") == "metrics":
                return int(port["containerPort"])
    return METRICS_PORT


class Workers:
    """All workers by group. A new listing replaces the old one as a whole, when it is complete."""

    def __init__(self) -> None:
        self._groups: dict[Group, dict[str, Worker]] = {}
        self._where: dict[str, Group] = {}
        self._listed: set[str] | None = None
        self.known_since: float | None = None
        """When the watch was last known to tell all; None: never yet."""
        self.lost_since: float | None = None
        """Since when it does not; None while it does."""

    def __len__(self) -> int:
        return len(self._where)

    def begin(self) -> None:
        """A new listing follows."""
        self._listed = set()

    def put(self, worker: Worker) -> None:
        self._drop(worker.uid)
        self._groups.setdefault(worker.group, {})[worker.uid] = worker
        self._where[worker.uid] = worker.group
        if self._listed is not None:
            self._listed.add(worker.uid)

    def remove(self, uid: str) -> None:
        self._drop(uid)

    def complete(self, now: float) -> list[str]:
        """The listing is complete; returns the pods that were not in it, which are forgotten."""
        gone = [uid for uid in self._where if self._listed is not None and uid not in self._listed]
        for uid in gone:
            self._drop(uid)
        self._listed, self.known_since, self.lost_since = None, now, None
        return gone

    def lost(self, now: float) -> None:
        """The watch broke: from now on the pods are as they were."""
        self.lost_since = now if self.lost_since is None else self.lost_since

    def groups(self, namespace: str, wanted: Wanted) -> Mapping[Group, list[Worker]]:
        """The groups of the namespace that are asked for and have pods."""
        asked = [
            Group(namespace, cluster, role) for cluster in sorted(wanted.clusters) for role in sorted(wanted.roles)
        ]
        return {group: list(self._groups[group].values()) for group in asked if group in self._groups}

    def _drop(self, uid: str) -> None:
        group = self._where.pop(uid, None)
        if group is None:
            return
        del self._groups[group][uid]
        if not self._groups[group]:
            del self._groups[group]


def serving(workers: Iterable[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.serves]
