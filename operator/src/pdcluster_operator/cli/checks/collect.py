"""Reads the facts of the checks: what the caller may not read is a fact too."""

import asyncio
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pdcluster_operator.cli.checks.cluster import is_fresh
from pdcluster_operator.cli.checks.facts import RIGHTS, Facts, Found, Right
from pdcluster_operator.cli.session import Session
from pdcluster_operator.cli.user_api import Changed, Selection, if_allowed
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.schema import definitions
from pdcluster_operator.kube import KubeError
from pdcluster_operator.resources import LEASE, PD_CLUSTER, POD, SECRET, SERVICE_ACCOUNT, Manifest, Resource

LEASE_NAME = "pdcluster-operator"
MOST_PATIENT = 30.0
"""Seconds that a Lease, which looks old by our clock, is watched at most."""

DEFINITION = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
API_SERVICE = Resource("apiregistration.k8s.io", "v1", "apiservices", "APIService")
ACCESS_REVIEW = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
NAMESPACE = Resource("", "v1", "namespaces", "Namespace")
NODE = Resource("", "v1", "nodes", "Node")
CLAIM = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
EXTERNAL_METRICS = "v1beta1.external.metrics.k8s.io"
CERTIFICATES = "certificates.cert-manager.io"


async def collect(session: Session, cluster: PDCluster | None) -> Facts:
    """Everything, read at once. The manifest is checked in the session's namespace."""
    spec_secrets, spec_claims, spec_accounts = _named(cluster)
    leases = await _listed(session, LEASE, Selection(fields=f"metadata.name={LEASE_NAME}"))
    return Facts(
        namespace=session.namespace,
        place=await _read(session, NAMESPACE, session.namespace),
        definitions={name: await _read(session, DEFINITION, name) for name in _definitions()},
        leases=leases,
        now=time.time(),
        renewed=await _renewed(session, leases or ()),
        rights={right: await _may(session, right) for right in RIGHTS},
        nodes=await _listed(session, NODE, Selection()) if cluster else None,
        pods=await _listed(session, POD, Selection()) if cluster else None,
        metrics_api=await _read(session, API_SERVICE, EXTERNAL_METRICS),
        issuer_api=await _read(session, DEFINITION, CERTIFICATES),
        cluster=cluster,
        secrets={name: await _read(session, SECRET, name, session.namespace) for name in spec_secrets},
        claims={name: await _read(session, CLAIM, name, session.namespace) for name in spec_claims},
        accounts={name: await _read(session, SERVICE_ACCOUNT, name, session.namespace) for name in spec_accounts},
        refusal=await _refusal(session, cluster) if cluster else None,
    )


def _definitions() -> list[str]:
    return [entry["metadata"]["name"] for entry in definitions().values()]


def _named(cluster: PDCluster | None) -> tuple[list[str], list[str], list[str]]:
    """The names of the secrets, volume claims and service accounts that a manifest refers to."""
    if cluster is None:
        return [], [], []
    spec = cluster.spec
    secrets = [spec.tls.secret_name, spec.router.api_key_secret_ref and spec.router.api_key_secret_ref.name]
    secrets += _values(spec.model.source.model_dump(by_alias=True), {"tokenSecret", "secret"})
    for engine in (spec.engine, *(spec.engine_of(role) for role in spec.roles().values())):
        secrets += [entry.name for entry in engine.pull_secrets or ()]
    claims = [spec.model.source.pvc.claim_name] if spec.model.source.pvc else []
    accounts = [spec.security.service_account_name] if spec.security.service_account_name else []
    return sorted({name for name in secrets if name}), claims, accounts


def _values(document: Any, keys: set[str]) -> list[str]:
    """What a document says under any of these keys, however deep."""
    if not isinstance(document, dict):
        return []
    found = [str(value) for key, value in document.items() if key in keys and isinstance(value, str)]
    return found + [entry for value in document.values() for entry in _values(value, keys)]


async def _read(session: Session, resource: Resource, name: str, namespace: str | None = None) -> Found:
    try:
        return Found(await session.api.get(resource, namespace or "", name))
    except KubeError as error:
        if error.is_permanent:
            return Found(allowed=False)
        raise


async def _listed(session: Session, resource: Resource, selection: Selection) -> tuple[Manifest, ...] | None:
    """Of all namespaces; None when the caller may not."""
    found: Iterable[Manifest] | None = await if_allowed(session.api.select(resource, None, selection))
    return None if found is None else tuple(found)


async def _may(session: Session, right: Right) -> bool:
    attributes = {"namespace": session.namespace, "verb": right.verb, "group": right.group, "resource": right.plural}
    review = {
        "apiVersion": ACCESS_REVIEW.api_version,
        "kind": ACCESS_REVIEW.kind,
        "spec": {"resourceAttributes": attributes},
    }
    answer = await session.api.post(ACCESS_REVIEW, None, review)
    return bool(answer["status"].get("allowed"))


async def _renewed(session: Session, leases: Iterable[Manifest]) -> frozenset[str]:
    """Where a Lease that looks old is renewed all the same: clocks differ, a watch does not lie."""
    old = [lease for lease in leases if lease["spec"].get("holderIdentity") and not is_fresh(lease, time.time())]
    watched = [_is_renewed(session, lease) for lease in old]
    places = zip(old, await asyncio.gather(*watched), strict=True)
    return frozenset(lease["metadata"]["namespace"] for lease, alive in places if alive)


async def _is_renewed(session: Session, lease: Manifest) -> bool:
    """Within the time that it lasts."""
    lasts = min(float(lease["spec"].get("leaseDurationSeconds") or 15), MOST_PATIENT)
    selection = Selection(fields=f"metadata.name={LEASE_NAME}")
    try:
        async with asyncio.timeout(lasts):
            async for change in session.api.follow(LEASE, lease["metadata"]["namespace"], selection):
                if isinstance(change, Changed) and not change.gone:
                    return True
    except (TimeoutError, KubeError):
        return False
    return False


async def _refusal(session: Session, cluster: PDCluster) -> str | None:
    """The API server's words against the manifest; nothing is stored."""
    manifest = cluster.model_dump(mode="json", by_alias=True, exclude_unset=True)
    manifest["metadata"] = {"name": cluster.metadata.name, "namespace": session.namespace}
    try:
        await session.api.rehearse(PD_CLUSTER, manifest)
    except KubeError as error:
        if not error.is_permanent or error.status == HTTPStatus.FORBIDDEN:
            return None
        return error.message
    return None
