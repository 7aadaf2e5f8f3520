"""What exists, in the operator's memory.

The watches are the only writers, on the event loop, with the answers to the operator's own writes; a reconciliation
reads one cluster's part and never asks the API server. A thousand clusters fit because an object is forgotten as soon
as its facts are taken.
"""

from collections.abc import Set
from dataclasses import dataclass, field, replace

from pdcluster_operator.observe import Child, ClusterKey, Pod, child_of, cluster_of, pod_of
from pdcluster_operator.resources import Manifest, ObjectKey


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

    def put(self, kind: str, manifest: Manifest) -> bool:
        """Takes an object's facts; answers whether they are news.

        An object without a cluster's label has none, nor has the echo of a write whose answer was put before.
        """
        key = cluster_of(kind, manifest)
        if key is None:
            return False
        view = self._clusters.setdefault(key, ClusterView())
        match kind:
            case "PDCluster":
                is_news = _put_manifest(view, manifest)
            case "Pod":
                is_news = _put_pod(view, pod_of(manifest))
            case _:
                is_news = _put_child(view, child_of(kind, manifest))
        view.changes += is_news
        return is_news

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
        pods = [pod for pod in view.pods.values() if pod.uid not in listed and pod.version <= version]
        for pod in pods:
            del view.pods[pod.name]
        return [pod.uid for pod in pods]
    known = [child for child in view.children.values() if child.key.kind == kind and child.uid not in listed]
    children = [child for child in known if int(child.version) <= version]
    for child in children:
        del view.children[child.key]
    return [child.uid for child in children]


def _put_manifest(view: ClusterView, manifest: Manifest) -> bool:
    known = view.manifest
    if _is_older(manifest, known):
        return False
    view.manifest = _without_noise(manifest)
    return view.manifest != known


def _put_pod(view: ClusterView, pod: Pod) -> bool:
    known = view.pods.get(pod.name)
    if known and known.uid == pod.uid and known.version > pod.version:
        return False
    view.pods[pod.name] = pod
    return known is None or replace(known, version=pod.version) != pod


def _put_child(view: ClusterView, child: Child) -> bool:
    known = view.children.get(child.key)
    if known and known.uid == child.uid and int(known.version) > int(child.version):
        return False
    view.children[child.key] = child
    return known is None or replace(known, version=child.version) != child


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
