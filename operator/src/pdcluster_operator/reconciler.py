"""One turn of one PDCluster: look, decide, act, tell. Called by the queue, never twice at once for the same cluster."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog

from pdcluster_operator import events, status
from pdcluster_operator.apply import Executor
from pdcluster_operator.cache import Cache, ClusterView
from pdcluster_operator.certificate_facts import CertificateFacts
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.parse import parse
from pdcluster_operator.desired.kubernetes_network import Origin
from pdcluster_operator.desired.kubernetes_pod import Release
from pdcluster_operator.desired.naming import group_name
from pdcluster_operator.drainer import Drainer
from pdcluster_operator.errors import SpecError
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import ClusterKey, ScalerFacts
from pdcluster_operator.optional import OptionalKinds
from pdcluster_operator.pace import rest
from pdcluster_operator.peers import PeerWatch
from pdcluster_operator.reconcile.damage import deletion_blocked
from pdcluster_operator.reconcile.decide import decide
from pdcluster_operator.reconcile.situation import Decision, Situation, Trouble
from pdcluster_operator.reconcile.telling import Unsaid, patience, patience_of_scaler
from pdcluster_operator.resources import API_VERSION, Manifest
from pdcluster_operator.secrets_store import CertificateStore
from pdcluster_operator.shortages import Shortages

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""How often a Secret that is not watched is read at most; at rest, a turn is."""
TROUBLED_SECONDS = 30.0
"""A turn that was refused something is repeated: what stood in the way may be gone without an event."""
CLUSTER = ""
"""Whose status it is, where those of its scalers go by their names."""
FOLLOW_SECONDS = 0.1
"""A turn that has changed what is known is followed by another: the echo of its writes is no news to the watches."""
FAILING_SECONDS = 10.0
"""Turns that end in a failed call for so long make a cluster Degraded."""


@dataclass(frozen=True, slots=True)
class Home:
    """What does not change while the operator runs."""

    release: Release
    origin: Origin
    resync_seconds: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a turn looks at beside the cache; each part has a writer of its own."""

    certificates: CertificateStore
    optional: OptionalKinds
    peers: PeerWatch
    shortages: Shortages


class Reconciler:
    """Owns no state but what its parts own."""

    def __init__(
        self,
        kube: Kube,
        cache: Cache,
        drainer: Drainer,
        surroundings: Surroundings,
        home: Home,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._drainer = drainer
        self._certificates = surroundings.certificates
        self._optional = surroundings.optional
        self._peers = surroundings.peers
        self._shortages = surroundings.shortages
        self._failing: dict[ClusterKey, float] = {}
        self._unsaid = Unsaid()
        self._executor = Executor(kube, cache, drainer, surroundings.certificates)
        self._home = home
        self._clock = clock
        self._chance = chance

    async def turn(self, key: ClusterKey) -> float | None:
        """Seconds until the next turn is due without an event; None when the cluster is gone."""
        self._peers.notice(key)
        manifest = self._cache.view(key).manifest
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            await self._leave(key, manifest)
            return None
        try:
            cluster = parse(manifest)
        except SpecError as error:
            trouble = Trouble("InvalidSpec", str(error))
            await self._tell(manifest, status.broken_status(manifest, trouble, _status(manifest), self._clock()))
            return self._rest()
        looked = await self._certificates.look(cluster, LOOK_SECONDS)
        lack = await self._shortages.look(key, tuple(self._cache.view(key).children.values()))
        view = self._cache.view(key)
        if view.manifest is not manifest:
            return 0.0
        situation = replace(self._situation(view, cluster, looked), unmade=lack.words)
        for kind in situation.absent & wanted_kinds(cluster):
            self._optional.want(kind)
        decision, known = decide(situation), view.changes
        try:
            refused = await self._executor.carry_out(situation, decision.actions)
        except KubeError as error:
            await self._tell_failing(key, manifest, situation, decision, error)
            raise
        self._failing.pop(key, None)
        decision = replace(decision, troubles=(*decision.troubles, *refused))
        if not refused:
            await self._note(manifest, [(note.reason, note.text) for note in decision.notes])
        # What this turn has made is there.
        view = self._cache.view(key)
        situation, moved = replace(situation, children=dict(view.children)), view.changes != known
        unsaid = await self._tell_all(key, manifest, situation, decision)
        waits = [TROUBLED_SECONDS if decision.troubles else None, FOLLOW_SECONDS if moved else None]
        waits += [decision.wake_after, lack.wake_after, unsaid]
        return min([self._rest(), *(seconds for seconds in waits if seconds is not None)])

    def _rest(self) -> float:
        return rest(self._home.resync_seconds, len(self._cache.keys()), self._chance)

    async def _leave(self, key: ClusterKey, manifest: Manifest | None) -> None:
        """A cluster that is gone is forgotten; one that is held is told by whom."""
        self._certificates.forget(key)
        self._shortages.forget(key)
        self._failing.pop(key, None)
        self._unsaid.forget(key)
        trouble = deletion_blocked(manifest) if manifest else None
        if manifest is None or trouble is None:
            return
        try:
            await self._tell(manifest, status.broken_status(manifest, trouble, _status(manifest), self._clock()))
        except KubeError as error:
            if not error.is_missing:
                raise

    async def _tell_failing(
        self, key: ClusterKey, manifest: Manifest, situation: Situation, decision: Decision, error: KubeError
    ) -> None:
        """A call that fails passes, mostly: it is told when every turn has ended so for a while."""
        since = self._failing.setdefault(key, self._clock())
        if error.is_conflict or self._clock() - since < FAILING_SECONDS:
            return
        failing = replace(decision, troubles=(Trouble("ApiCallsFail", str(error)), *decision.troubles))
        await self._tell(manifest, status.status_of(situation, failing, _status(manifest)))

    def _situation(self, view: ClusterView, cluster: PDCluster, looked: CertificateFacts | None) -> Situation:
        return Situation(
            cluster=cluster,
            children=dict(view.children),
            pods=tuple(view.pods.values()),
            drained=self._drainer.drained,
            now=self._clock(),
            release=self._home.release,
            origin=self._home.origin,
            periods=self._certificates.periods,
            user_certificate=looked,
            absent=self._optional.absent,
            linked=self._peers.linked((cluster.metadata.namespace, cluster.metadata.name)),
        )

    async def _tell(self, manifest: Manifest, told: Manifest) -> None:
        """Writes the status if it says anything new, and an event for every condition that changed."""
        before = _status(manifest)
        if told == before:
            return
        try:
            written = await self._kube.apply(_only_status(manifest, told), subresource="status")
        except KubeError as error:
            if not error.is_missing:
                raise
            # Deleted while the watch was broken, which kopf does not tell: what was its own goes with it.
            self._cache.remove("PDCluster", manifest)
            return
        self._cache.put("PDCluster", written)
        for event in events.transitions(written, before.get("conditions") or [], self._clock()):
            await self._emit(event)

    async def _note(self, manifest: Manifest, notes: Iterable[tuple[str, str]]) -> None:
        """An event for each reason and text."""
        whole = {"apiVersion": API_VERSION, "kind": "PDCluster", **manifest}
        for reason, text in notes:
            await self._emit(events.told(whole, reason, reason, text, self._clock()))

    async def _emit(self, event: Manifest) -> None:
        """An event that is lost changes nothing."""
        try:
            await self._kube.create(event)
        except KubeError as error:
            log.warning("event_lost", reason=str(error), note=event["note"])

    async def _tell_all(
        self, key: ClusterKey, manifest: Manifest, situation: Situation, decision: Decision
    ) -> float | None:
        """Writes what says anything new and may wait no longer; returns for how long the rest may.

        A scaler that somebody waits for is written by itself; with the cluster's status all others are, and first.
        """
        before, told = _status(manifest), status.status_of(situation, decision, _status(manifest))
        scalers, now = _scalers_told(situation, decision), self._clock()
        waits = {name: self._unsaid.left(key, name, patience_of_scaler(*entry), now) for name, entry in scalers.items()}
        if told == before:
            self._unsaid.told(key, CLUSTER)
        else:
            waits[CLUSTER] = self._unsaid.left(key, CLUSTER, patience(before, told), now)
        everything = waits.get(CLUSTER, 1.0) <= 0
        for name, (_, news) in scalers.items():
            if everything or waits[name] <= 0:
                await self._tell_scaler(key, name, news)
                del waits[name]
        if everything or not waits:
            await self._tell(manifest, told)
            self._unsaid.forget(key)
            return None
        return min(waits.values())

    async def _tell_scaler(self, key: ClusterKey, name: str, news: Manifest) -> None:
        scaler = {"kind": "PDRoleScaler", "metadata": {"name": name, "namespace": key[0]}}
        self._cache.put("PDRoleScaler", await self._kube.apply(_only_status(scaler, news), subresource="status"))
        self._unsaid.told(key, name)


def _scalers_told(situation: Situation, decision: Decision) -> dict[str, tuple[Manifest, Manifest]]:
    """What is told of each scaler, and what is to be told, by its name, where that differs.

    A scaler counts pods: there is nothing to count before the StatefulSet's controller has seen what it is to make.
    """
    found: dict[str, tuple[Manifest, Manifest]] = {}
    for role, numbers in decision.roles.items():
        name = group_name(situation.cluster.metadata.name, role)
        scaler, workload = situation.child("PDRoleScaler", name), situation.workload("StatefulSet", name)
        if scaler is None or not isinstance(scaler.facts, ScalerFacts):
            continue
        before = scaler.facts.status
        told = status.scaler_status(situation, role, numbers, before)
        if told != before and (before or (workload and workload.settled)):
            found[name] = before, told
    return found


def wanted_kinds(cluster: PDCluster) -> frozenset[str]:
    """Kinds of other projects that this spec has a use for."""
    uses = {"Certificate": cluster.spec.tls.issuer_ref, "PodMonitor": cluster.spec.observability.pod_monitor.enabled}
    return frozenset(kind for kind, used in uses.items() if used)


def _status(manifest: Manifest) -> Mapping[str, Any]:
    return manifest.get("status") or {}


def _only_status(manifest: Manifest, told: Manifest) -> Manifest:
    metadata = {key: manifest["metadata"][key] for key in ("name", "namespace")}
    return {"apiVersion": API_VERSION, "kind": manifest["kind"], "metadata": metadata, "status": told}
