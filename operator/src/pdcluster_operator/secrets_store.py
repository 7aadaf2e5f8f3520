"""Certificates of PDClusters in Secrets: the operator's own ones made and turned, others' read. No key is kept here."""

import time
from collections.abc import Callable

from pdcluster_operator import own_authority
from pdcluster_operator.certificate_facts import CertificateFacts, facts_of, read
from pdcluster_operator.certificates import Pair
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.desired.kubernetes_tls import OPERATOR, authority_secret, certificate_secret
from pdcluster_operator.desired.labels import ADOPT, MADE_FOR
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import ClusterKey
from pdcluster_operator.own_authority import CertificateError, ForeignSecretError
from pdcluster_operator.reconcile.rotation import Periods, Turn
from pdcluster_operator.resources import SECRET, Manifest, ObjectKey
from pdcluster_operator.together import together

OPERATOR_SECONDS = 3600.0


class CertificateStore:
    """Reads a Secret when it needs its key; `looked_at` is its own, and holds no key."""

    def __init__(self, kube: Kube, periods: Periods, clock: Callable[[], float] = time.time) -> None:
        self._kube = kube
        self.periods = periods
        self._clock = clock
        self._looked_at: dict[ClusterKey, tuple[str, float, CertificateFacts]] = {}

    async def issue(self, cluster: PDCluster, roles: tuple[str, ...], *, is_first: bool) -> list[Manifest]:
        """New certificates for these roles; returns the Secrets as the API server has them."""
        made: list[Manifest] = []
        authority = await self._first_authority(cluster, made) if is_first else await self._authority(cluster)
        secrets = [own_authority.leaf(cluster, role, authority, self.periods, self._clock()) for role in roles]
        return made + await together(*(self._put(cluster, secret) for secret in secrets))

    async def turn(self, cluster: PDCluster, turn: Turn, version: str) -> Manifest:
        """One step of the authority's rotation; a conflict when its Secret is not the one that was decided on."""
        found = await self._authority(cluster)
        secret = own_authority.turned(cluster, found, turn, self.periods, self._clock())
        return await self._kube.apply(secret, version=version)

    async def operator_pair(self, cluster: PDCluster) -> tuple[Pair, bytes]:
        """A certificate by which the operator calls this cluster's workers, and the authorities to trust."""
        tls, name = cluster.spec.tls, cluster.metadata.name
        if not (tls.secret_name or tls.issuer_ref):
            secret = await self._authority(cluster)
            return own_authority.caller(cluster, OPERATOR, secret, OPERATOR_SECONDS, self._clock())
        found = await self._secret(cluster, certificate_secret(name, tls, OPERATOR))
        files = own_authority.files_of(found)
        try:
            read(files)
        except ValueError as error:
            raise CertificateError(f"Secret {found['metadata']['name']}: {error}") from error
        return Pair(files["tls.crt"], files["tls.key"]), files["ca.crt"]

    async def look(self, cluster: PDCluster, every: float) -> CertificateFacts | None:
        """What is in the Secret that the spec names, read again after `every` seconds; None when it names none."""
        name, key = cluster.spec.tls.secret_name, (cluster.metadata.namespace, cluster.metadata.name)
        if not name:
            self._looked_at.pop(key, None)
            return None
        known = self._looked_at.get(key)
        if known and known[0] == name and self._clock() - known[1] < every:
            return known[2]
        found = await self._kube.get(SECRET, cluster.metadata.namespace, name)
        facts = facts_of(found) if found else CertificateFacts(problem="it does not exist")
        self._looked_at[key] = (name, self._clock(), facts)
        return facts

    def looked_at(self) -> dict[ClusterKey, CertificateFacts]:
        """What was found in users' Secrets."""
        return {key: facts for key, (_, _, facts) in self._looked_at.items()}

    def forget(self, key: ClusterKey) -> None:
        """The cluster is gone."""
        self._looked_at.pop(key, None)

    async def _put(self, cluster: PDCluster, secret: Manifest) -> Manifest:
        """A new Secret, or the next content of one that is the cluster's: nobody else's is written over."""
        try:
            return await self._kube.apply(secret, only_create=True)
        except KubeError as error:
            if not error.is_conflict:
                raise
        name = secret["metadata"]["name"]
        found = await self._secret(cluster, name)
        if not is_own(cluster, found):
            key = ObjectKey("Secret", cluster.metadata.namespace, name)
            raise ForeignSecretError(f"not the operator's, and left alone: {key}")
        return await self._kube.apply(secret, version=found["metadata"]["resourceVersion"])

    async def _first_authority(self, cluster: PDCluster, made: list[Manifest]) -> Manifest:
        """The cluster's new authority; of two that make it at once, one wins."""
        try:
            secret = own_authority.made(cluster, self.periods, self._clock())
            found = await self._kube.apply(secret, only_create=True)
        except KubeError as error:
            if not error.is_conflict:
                raise
            return await self._authority(cluster)
        made.append(found)
        return found

    async def _authority(self, cluster: PDCluster) -> Manifest:
        """Its Secret, if it is the cluster's own."""
        name = authority_secret(cluster.metadata.name)
        found = await self._secret(cluster, name)
        if cluster.metadata.uid not in {entry["uid"] for entry in found["metadata"].get("ownerReferences", [])}:
            raise ForeignSecretError(f"not the operator's, and left alone: Secret {cluster.metadata.namespace}/{name}")
        return found

    async def _secret(self, cluster: PDCluster, name: str) -> Manifest:
        found = await self._kube.get(SECRET, cluster.metadata.namespace, name)
        if found is None:
            raise CertificateError(f"Secret {cluster.metadata.namespace}/{name} does not exist")
        return found


def is_own(cluster: PDCluster, secret: Manifest) -> bool:
    """Whether the cluster owns it; without any owner, whether it was made for this cluster or handed to it."""
    metadata = secret["metadata"]
    owners = {entry["uid"] for entry in metadata.get("ownerReferences") or []}
    if owners:
        return cluster.metadata.uid in owners
    notes = metadata.get("annotations") or {}
    return notes.get(MADE_FOR) == cluster.metadata.uid or notes.get(ADOPT) == cluster.metadata.name
