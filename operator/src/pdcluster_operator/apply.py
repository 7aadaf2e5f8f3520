"""Carries decisions out: one cluster's actions in order, and what the API server refuses as trouble in the status."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from itertools import groupby

from pdcluster_operator.cache import Cache
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired.kubernetes import owner_of
from pdcluster_operator.desired.labels import ADOPT
from pdcluster_operator.drainer import Drainer
from pdcluster_operator.kube import FIELD_MANAGER, Kube, KubeError
from pdcluster_operator.observe import child_of, cluster_of
from pdcluster_operator.own_authority import CertificateError
from pdcluster_operator.reconcile.situation import (
    Action,
    Adopt,
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
from pdcluster_operator.refusals import reason_of
from pdcluster_operator.resources import BY_KIND, PREREQUISITES, Manifest, key_of
from pdcluster_operator.secrets_store import CertificateStore
from pdcluster_operator.together import together

WORKLOADS = {"StatefulSet", "Deployment"}
PREREQUISITE_KINDS = {resource.kind for resource in PREREQUISITES}
NEEDED_FIRST = {"ControllerRevision", "Secret", "ServiceAccount"}
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
        passing: list[KubeError] = []
        for step in steps(actions):
            outcomes = await together(*(self._outcome(situation, action) for action in step))
            troubles += [outcome for outcome in outcomes if isinstance(outcome, Trouble)]
            failures = [outcome for outcome in outcomes if isinstance(outcome, _Failure)]
            for failure in failures:
                if not _stands_alone(failure.action, failure.error):
                    raise failure.named() from failure.error
            passing += [failure.named() for failure in failures]
        if passing:
            raise passing[0]
        return troubles

    async def _outcome(self, situation: Situation, action: Action) -> "Trouble | _Failure | None":
        try:
            return await self._do(situation, action)
        except KubeError as error:
            return trouble_of(action, error) if error.is_permanent else _Failure(action, error)
        except CertificateError as error:
            return Trouble(error.condition, str(error))

    async def _do(self, situation: Situation, action: Action) -> Trouble | None:
        cluster = situation.cluster
        match action:
            case Apply():
                return await self._apply(cluster, action)
            case Create(manifest):
                return await self._create(cluster, manifest)
            case Delete(child):
                await self._kube.delete(BY_KIND[child.key.kind], child.key.namespace, child.key.name, child.uid)
            case Adopt(child):
                metadata = {"ownerReferences": [owner_of(cluster)], "resourceVersion": child.version}
                resource = BY_KIND[child.key.kind]
                found = await self._kube.merge(resource, child.key.namespace, child.key.name, {"metadata": metadata})
                self._cache.put(child.key.kind, found)
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
        if cluster.metadata.uid in owners and _has_labels(found, action.manifest):
            self._cache.put(key.kind, found)
            return None
        handed_over = found["metadata"].get("annotations", {}).get(ADOPT) == cluster.metadata.name
        is_ours = cluster.metadata.uid in owners
        if is_ours or (not owners and (handed_over or is_orphan(cluster, key.kind, found))):
            return await self._take_back(cluster, action, found["metadata"]["resourceVersion"])
        return Trouble("NameConflict", f"not the operator's, and left alone: {key}")

    async def _take_back(self, cluster: PDCluster, action: Apply, version: str) -> Trouble | None:
        """Owner and labels as they should be; of a PDRoleScaler nothing else, its number is not the operator's."""
        key, metadata = key_of(action.manifest), action.manifest["metadata"]
        if key.kind != "PDRoleScaler":
            return await self._apply(cluster, replace(action, only_create=False, version=version))
        marks = {name: metadata[name] for name in ("labels", "ownerReferences")}
        patch = {"metadata": {**marks, "resourceVersion": version}}
        self._cache.put(key.kind, await self._kube.merge(BY_KIND[key.kind], key.namespace, key.name, patch))
        return None


def steps(actions: tuple[Action, ...]) -> Iterator[list[Action]]:
    """What is done at once: new children that do not need each other; everything else one by one, in order."""
    for (at_once, _), group in groupby(actions, lambda action: (_is_new(action), _is_needed(action))):
        found = list(group)
        yield from [found] if at_once else ([action] for action in found)


def _is_new(action: Action) -> bool:
    return isinstance(action, Apply) and action.only_create


def _is_needed(action: Action) -> bool:
    return isinstance(action, Apply) and action.manifest["kind"] in PREREQUISITE_KINDS


@dataclass(frozen=True, slots=True)
class _Failure:
    """A call that may succeed another time."""

    action: Action
    error: KubeError

    def named(self) -> KubeError:
        """The same failure, with the name of the child that it is about."""
        error = self.error
        return KubeError(error.status, error.reason, f"{_what(self.action)}: {error.message}", error.retry_after)


def _what(action: Action) -> str:
    match action:
        case Apply(manifest) | Create(manifest):
            return f"{manifest['kind']} {manifest['metadata']['name']}"
        case Delete(child) | Adopt(child):
            return f"{child.key.kind} {child.key.name}"
        case StartDrain(pod) | StopDrain(pod) | NoteDrained(pod):
            return f"Pod {pod.name}"
    return "Secret"


def _stands_alone(action: Action, error: KubeError) -> bool:
    """Whether the server failed at this child alone, as far as can be told, and no other needs it."""
    alone = isinstance(action, Apply) and action.manifest["kind"] not in NEEDED_FIRST
    return alone and error.status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _has_labels(found: Manifest, wanted: Manifest) -> bool:
    """Whether the watches, which go by labels, tell of it as they should."""
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in wanted["metadata"].get("labels", {}).items())


def is_orphan(cluster: PDCluster, kind: str, found: Manifest) -> bool:
    """Whether the operator itself made it for a cluster of this name, and it has lost its owner since."""
    child = child_of(kind, found)
    own = cluster_of(kind, found) == (cluster.metadata.namespace, cluster.metadata.name)
    if kind == "PDRoleScaler":
        return own and any(entry.get("manager") == FIELD_MANAGER for entry in found["metadata"]["managedFields"])
    return own and bool(child.applied and child.fields)


def trouble_of(action: Action, error: KubeError) -> Trouble:
    """A refusal as a person should read it."""
    message = f"{_what(action)}: {error.message}"
    is_workload = isinstance(action, Apply) and action.manifest["kind"] in WORKLOADS
    refused = "InvalidPodTemplate" if is_workload else "ChildRefused"
    return Trouble(reason_of(error.message, "Forbidden" if error.status == HTTPStatus.FORBIDDEN else refused), message)
