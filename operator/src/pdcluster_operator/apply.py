"""Carries decisions out: one cluster's actions in order, and what the API server refuses as trouble in the status."""

from dataclasses import replace
from http import HTTPStatus

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired.labels import ADOPT
from pdcluster_operator.drainer import Drainer
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import Cache, child_of, cluster_of
from pdcluster_operator.own_authority import CertificateError
from pdcluster_operator.reconcile.situation import (
    Action,
    Apply,
    Create,
    Delete,
    IssueCertificates,
    NoteDrained,
    Situation,
    StartDrain,
    StopDrain,
    Trouble,
    TurnAuthority,
)
from pdcluster_operator.resources import BY_KIND, Manifest, key_of
from pdcluster_operator.secrets_store import CertificateStore

WORKLOADS = {"StatefulSet", "Deployment"}
NEEDED_FIRST = {"ControllerRevision", "Secret", "ConfigMap", "ServiceAccount"}
"""What later actions build on: without one of these, nothing after it is done."""


class Executor:
    """The one that writes children. What the API server answers goes to the cache at once: it overtakes the watch."""

    def __init__(self, kube: Kube, cache: Cache, drainer: Drainer, certificates: CertificateStore) -> None:
        self._kube = kube
        self._cache = cache
        self._drainer = drainer
        self._certificates = certificates

    async def carry_out(self, situation: Situation, actions: tuple[Action, ...]) -> list[Trouble]:
        """Does all that can be done; returns what was refused for good. Raises KubeError for what may pass.

        A child that the API server fails to take, as behind a webhook that is away, keeps no other child waiting.
        """
        troubles: list[Trouble] = []
        passing: KubeError | None = None
        for action in actions:
            try:
                trouble = await self._do(situation, action)
            except KubeError as error:
                if error.is_permanent:
                    trouble = trouble_of(action, error)
                elif _stands_alone(action, error):
                    passing, trouble = passing or error, None
                else:
                    raise
            except CertificateError as error:
                trouble = Trouble("CertificatesBroken", str(error))
            if trouble:
                troubles.append(trouble)
        if passing:
            raise passing
        return troubles

    async def _do(self, situation: Situation, action: Action) -> Trouble | None:
        cluster = situation.cluster
        match action:
            case Apply():
                return await self._apply(cluster, action)
            case Create(manifest):
                return await self._create(cluster, manifest)
            case Delete(child):
                await self._kube.delete(BY_KIND[child.key.kind], child.key.namespace, child.key.name, child.uid)
            case StartDrain(pod, deadline, afresh):
                await self._drainer.start(cluster, pod, deadline, situation.now, afresh=afresh)
            case NoteDrained(pod):
                await self._drainer.note(cluster, pod)
            case StopDrain(pod):
                await self._drainer.stop(cluster, pod)
            case IssueCertificates(roles, is_first):
                for made in await self._certificates.issue(cluster, roles, is_first=is_first):
                    self._cache.put("Secret", made)
            case TurnAuthority(turn, version):
                self._cache.put("Secret", await self._certificates.turn(cluster, turn, version))
        return None

    async def _apply(self, cluster: PDCluster, action: Apply) -> Trouble | None:
        try:
            found = await self._kube.apply(action.manifest, only_create=action.only_create, version=action.version)
        except KubeError as error:
            if not (error.is_conflict and action.only_create):
                raise
            return await self._taken(cluster, action)
        self._cache.put(action.manifest["kind"], found)
        return None

    async def _create(self, cluster: PDCluster, manifest: Manifest) -> Trouble | None:
        try:
            self._cache.put(manifest["kind"], await self._kube.create(manifest))
        except KubeError as error:
            if not error.is_conflict:
                raise
            return await self._taken(cluster, Apply(manifest))
        return None

    async def _taken(self, cluster: PDCluster, action: Apply) -> Trouble | None:
        """The name is taken: by our own object that the watch has not told of yet, or by somebody else's."""
        key = key_of(action.manifest)
        found = await self._kube.get(BY_KIND[key.kind], key.namespace, key.name)
        if found is None:
            return None
        owners = {entry["uid"] for entry in found["metadata"].get("ownerReferences", [])}
        if cluster.metadata.uid in owners:
            self._cache.put(key.kind, found)
            return None
        handed_over = found["metadata"].get("annotations", {}).get(ADOPT) == cluster.metadata.name
        if not owners and (handed_over or is_orphan(cluster, key.kind, found)):
            return await self._apply(
                cluster, replace(action, only_create=False, version=found["metadata"]["resourceVersion"])
            )
        return Trouble("NameConflict", f"not the operator's, and left alone: {key}")


def _stands_alone(action: Action, error: KubeError) -> bool:
    """Whether the server failed at this child alone, as far as can be told, and no other needs it."""
    alone = isinstance(action, Apply) and action.manifest["kind"] not in NEEDED_FIRST
    return alone and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def is_orphan(cluster: PDCluster, kind: str, found: Manifest) -> bool:
    """Whether the operator itself made it for a cluster of this name, and it has lost its owner since."""
    child = child_of(kind, found)
    own = cluster_of(kind, found) == (cluster.metadata.namespace, cluster.metadata.name)
    return own and bool(child.applied and child.fields)


def trouble_of(action: Action, error: KubeError) -> Trouble:
    """A refusal as a person should read it."""
    manifest: Manifest = action.manifest if isinstance(action, Apply | Create) else {"kind": "Pod", "metadata": {}}
    what = f"{manifest['kind']} {manifest['metadata'].get('name', '')}".strip()
    message = f"{what}: {error.message}"
    if "exceeded quota" in error.message:
        return Trouble("QuotaExceeded", message)
    if "being terminated" in error.message:
        return Trouble("NamespaceTerminating", message)
    if error.status == HTTPStatus.FORBIDDEN:
        return Trouble("Forbidden", message)
    return Trouble("InvalidPodTemplate" if manifest["kind"] in WORKLOADS else "ChildRefused", message)
