"""Kinds of other projects for the control plane under test: as much of cert-manager's and the Prometheus operator's
definitions as the operator can rely on, and what cert-manager would do with a Certificate.
"""

import asyncio
import base64
import datetime
from typing import Any

from cluster_client import ApiError, Client, Manifest

from pdcluster_operator.certificates import Authority

DAY = datetime.timedelta(days=1)


def definition(group: str, version: str, kind: str, *, with_status: bool = False) -> Manifest:
    """A namespaced kind that takes any spec."""
    plural, anything = f"{kind.lower()}s", {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{**served, **({"subresources": {"status": {}}} if with_status else {})}],
        },
    }


CERTIFICATE = "cert-manager.io/v1/Certificate"
CERTIFICATES = definition("cert-manager.io", "v1", "Certificate", with_status=True)
POD_MONITOR = "monitoring.coreos.com/v1/PodMonitor"
POD_MONITORS = definition("monitoring.coreos.com", "v1", "PodMonitor")


async def install(admin: Client, wanted: Manifest) -> None:
    """Until the API server serves the kind."""

    await admin.create(wanted)
    spec = wanted["spec"]
    kind = f"{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['kind']}"
    async with asyncio.timeout(30):
        while True:
            try:
                await admin.list(kind)
                return
            except ApiError:  # neither the kind nor its storage is there at once
                await asyncio.sleep(0.2)


async def remove(admin: Client, wanted: Manifest) -> None:
    kind, name = "apiextensions.k8s.io/v1/CustomResourceDefinition", wanted["metadata"]["name"]
    if await admin.find(kind, name):
        await admin.delete(kind, name)
        await admin.wait(kind, name, lambda found: found is None)


def pair_secret(name: str, authority: Authority, names: list[str], **extra: Any) -> Manifest:
    """A Secret with a leaf of `authority` for these names; keys of `extra` are those of `lifetime` and `labels`."""
    now = datetime.datetime.now(datetime.UTC)
    leaf = authority.issue(names, [], now, extra.get("lifetime", DAY))
    content = {"tls.crt": leaf.certificate, "tls.key": leaf.key, "ca.crt": authority.certificate}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": extra.get("labels", {})},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in content.items()},
    }


async def issue(admin: Client, certificate: Manifest, authority: Authority) -> None:
    """What cert-manager does with a Certificate: the Secret, then the status."""
    spec = certificate["spec"]
    marks = spec["secretTemplate"]["labels"]
    await admin.apply(pair_secret(spec["secretName"], authority, spec["dnsNames"], labels=marks), "cert-manager")
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": ""}
    await admin.merge(CERTIFICATE, certificate["metadata"]["name"], {"status": {"conditions": [ready]}}, "status")
