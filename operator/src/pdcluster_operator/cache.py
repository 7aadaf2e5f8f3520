"""What exists, in the operator's memory.

The watches are the only writers, on the event loop, with the answers to the operator's own writes; a reconciliation
reads one cluster's part and never asks the API server. A thousand clusters fit because an object is forgotten as soon
as its facts are taken.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pdcluster_operator.observe import Child, ClusterKey, Pod, child_of, cluster_of, pod_of
from pdcluster_operator.resources import Manifest, ObjectKey

Name = TypeVar("Name")
Fact = TypeVar("Fact", Child, Pod)


@dataclass
class ClusterView:
    """All that is known of one PDCluster; `manifest` is None when there is none any more."""

    manifest: Manifest | None = None
    children: dict[ObjectKey, Child] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    changes: int = 0
    """How often something of it became known that was not known before."""

    @property
    def is_empty(self) -> bool:
        return self.manifest is None and not self.children and not self.pods


class Cache:
    """Facts by cluster."""

    def __init__(self) -> None:
        self._clusters: dict[ClusterKey, ClusterView] = {}

    def view(self, key: ClusterKey) -> ClusterView:
        """Empty when nothing is known. The caller must not keep it over an await."""
        return self._clusters.get(key) or ClusterView()

    def views(self) -> list[tuple[ClusterKey, ClusterView]]:
        """All that is known, for those who count."""
        return list(self._clusters.items())

    def keys(self) -> list[ClusterKey]:
        """All clusters of which anything is known."""
        return list(self._clusters)

    def put(self, kind: str, manifest: Manifest) -> ClusterKey | None:
        """Takes an object's facts; the key of the cluster for which they are news.

        An object without a cluster's label has none, nor has the echo of a write whose answer was put before.
        """
        key = cluster_of(kind, manifest)
        if key is None:
            return None
        view = self._clusters.setdefault(key, ClusterView())
        match kind:
            case "PDCluster":
                is_news = _put_manifest(view, manifest)
            case "Pod":
                pod = pod_of(manifest)
                is_news = _put(view.pods, pod.name, pod)
            case _:
                child = child_of(kind, manifest)
                is_news = _put(view.children, child.key, child)
        view.changes += is_news
        return key if is_news else None

    def refresh_pod(self, manifest: Manifest) -> None:
        """Takes the answer to a write, which overtakes the watch, unless the pod is gone or replaced by now."""
        key, metadata = cluster_of("Pod", manifest), manifest["metadata"]
        known = self.view(key).pods.get(metadata["name"]) if key else None
        if known and known.uid == metadata["uid"]:
            self.put("Pod", manifest)

    def remove(self, kind: str, manifest: Manifest) -> ClusterKey | None:
        """Forgets an object that is gone, unless a newer one of its name is known already; its cluster's key."""
        key = cluster_of(kind, manifest)
        if key is None or key not in self._clusters:
            return key
        view, uid, name = self._clusters[key], manifest["metadata"]["uid"], manifest["metadata"]["name"]
        view.changes += 1
        if kind == "PDCluster" and view.manifest and view.manifest["metadata"]["uid"] == uid:
            view.manifest = None
        elif kind == "Pod" and name in view.pods and view.pods[name].uid == uid:
            del view.pods[name]
        child = view.children.get(ObjectKey(kind, key[0], name))
        if child and child.uid == uid:
            del view.children[child.key]
        if view.is_empty:
            del self._clusters[key]
        return key

    def keep_only(self, kind: str, namespace: str, listed: Set[str], version: int) -> list[tuple[ClusterKey, str]]:
        """Forgets what a listing of children or pods has not brought, unless it is younger than the listing.

        `namespace` empty: of all; `listed`: uids. Answers with the cluster and the uid of everything forgotten.
        """
        gone: list[tuple[ClusterKey, str]] = []
        for key, view in self.views():
            if namespace in ("", key[0]):
                uids = _forget_unlisted(view, kind, listed, version)
                view.changes += len(uids)
                gone += [(key, uid) for uid in uids]
                if view.is_empty:
                    del self._clusters[key]
        return gone


def _forget_unlisted(view: ClusterView, kind: str, listed: Set[str], version: int) -> list[str]:
    if kind == "Pod":
        return _forget(view.pods, view.pods, listed, version)
    return _forget(view.children, [name for name in view.children if name.kind == kind], listed, version)


def _forget(known: dict[Name, Fact], names: Iterable[Name], listed: Set[str], version: int) -> list[str]:
    old = {name: known[name] for name in names if int(known[name].version) <= version}
    gone = {name: fact.uid for name, fact in old.items() if fact.uid not in listed}
    for name in gone:
        del known[name]
    return list(gone.values())


def _put_manifest(view: ClusterView, manifest: Manifest) -> bool:
    known = view.manifest
    if _is_older(manifest, known):
        return False
    view.manifest = _without_noise(manifest)
    return view.manifest != known


def _put(known: dict[Name, Fact], name: Name, fact: Fact) -> bool:
    old = known.get(name)
    if old and old.uid == fact.uid and int(old.version) > int(fact.version):
        return False
    known[name] = fact
    return old is None or replace(old, version=fact.version) != fact


def _is_older(manifest: Manifest, known: Manifest | None) -> bool:
    """Whether the same object is known in a later version: an answer to a write overtakes the watch."""
    if known is None or known["metadata"]["uid"] != manifest["metadata"]["uid"]:
        return False
    return int(manifest["metadata"]["resourceVersion"]) < int(known["metadata"]["resourceVersion"])


def _without_noise(manifest: Manifest) -> Manifest:
    """A PDCluster without managedFields and what client-side apply leaves behind: they are most of its bytes."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    notes = metadata.get("annotations", {})
    metadata["annotations"] = {
        key: value for key, value in notes.items() if not key.startswith("kubectl.kubernetes.io/")
    }
    return {**manifest, "metadata": metadata}
