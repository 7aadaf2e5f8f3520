"""What a release leaves on a cluster, as committed files: taken from one control plane, brought back into another.

A snapshot is a folder of three files, one object a line: the definitions, the chart as it was rendered, and one
PDCluster with its children as the API server had them, with uids, hashes and `managedFields`. They are brought back by
way of etcd, since the API server would give them new uids and take the fields away from their owners. Not in it are
what Kubernetes' own controllers say in a status, and certificates with their keys: those are made anew.
"""

import base64
import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cluster_client import Client, Manifest

from pdcluster_operator.certificates import Authority, Pair
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import tls_identity
from pdcluster_operator.resources import BY_KIND, CHILDREN, GROUP, PD_CLUSTER

RELEASES = Path(__file__).resolve().parents[1] / "upgrade"
DEFINITIONS, INSTALL, OBJECTS = "definitions.json", "install.json", "objects.json"
NAMESPACE = "serving"
"""Where the PDCluster of every snapshot is: its name is part of what the operator hashed."""
SYSTEM = "pdcluster-system"
NAME = "upgraded"
LIFETIME = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Snapshot:
    """One release's folder, read."""

    folder: Path
    definitions: list[Manifest]
    install: list[Manifest]
    objects: list[Manifest]

    @classmethod
    def read(cls, folder: Path) -> "Snapshot":
        return cls(folder, *(_lines(folder / name) for name in (DEFINITIONS, INSTALL, OBJECTS)))

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, manifests in zip(
            (DEFINITIONS, INSTALL, OBJECTS), (self.definitions, self.install, self.objects), strict=True
        ):
            text = [json.dumps(manifest, sort_keys=True, separators=(",", ":")) for manifest in manifests]
            (self.folder / name).write_text("\n".join(text) + "\n")

    def as_chart(self, folder: Path) -> Path:
        """The release as a chart: what it rendered, word for word."""
        (folder / "templates").mkdir(parents=True)
        (folder / "Chart.yaml").write_text("{apiVersion: v2, name: pdcluster, version: 0.0.1}\n")
        documents = [json.dumps(manifest) for manifest in (*self.definitions, *self.install)]
        (folder / "release.yaml").write_text("\n---\n".join(documents))
        (folder / "templates" / "release.yaml").write_text('{{ .Files.Get "release.yaml" }}\n')
        return folder


async def taken(admin: Client) -> list[Manifest]:
    """The PDCluster of the client's namespace and its children, as they are kept in a snapshot."""
    owner = await admin.get(f"{PD_CLUSTER.api_version}/{PD_CLUSTER.kind}", NAME)
    return [_kept(manifest) for manifest in (owner, *await children(admin))]


async def children(admin: Client) -> list[Manifest]:
    """Every object that the operator made for the PDCluster, whoever owns it."""
    found = []
    for resource in CHILDREN:
        kind = f"{resource.api_version}/{resource.kind}"
        for manifest in await admin.list(kind, f"{labels.CLUSTER}={NAME},{labels.MANAGED_BY}={labels.OPERATOR}"):
            if not _is_of_a_controller(manifest):
                found.append({**manifest, "apiVersion": resource.api_version, "kind": resource.kind})
    return found


async def brought_back(etcd: str, objects: Sequence[Manifest]) -> None:
    """Puts the objects where the API server looks for them."""
    async with httpx.AsyncClient(base_url=etcd, trust_env=False) as http:
        for manifest in _with_certificates(objects):
            body = {"key": _encoded(_registry(manifest)), "value": _encoded(json.dumps(manifest))}
            (await http.post("/v3/kv/put", json=body)).raise_for_status()


def _is_of_a_controller(manifest: Manifest) -> bool:
    """A StatefulSet's own revisions carry its pods' labels."""
    return {entry["kind"] for entry in manifest["metadata"].get("ownerReferences", [])} - {PD_CLUSTER.kind} != set()


def _kept(manifest: Manifest) -> Manifest:
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "resourceVersion"}
    kept = {**manifest, "metadata": metadata}
    if BY_KIND[manifest["kind"]].group != GROUP:
        kept.pop("status", None)
        entries = [entry for entry in metadata["managedFields"] if entry.get("subresource") != "status"]
        kept["metadata"] = {**metadata, "managedFields": entries}
    return kept | ({"data": dict.fromkeys(manifest["data"], "")} if manifest["kind"] == "Secret" else {})


def _with_certificates(objects: Iterable[Manifest]) -> list[Manifest]:
    now = datetime.datetime.now(datetime.UTC)
    authority = Authority("snapshot", now, LIFETIME)
    made = []
    for manifest in objects:
        if manifest["kind"] == "Secret":
            role = manifest["metadata"]["labels"][labels.ROLE]
            pair = authority.pair() if role == "ca" else _leaf(authority, role, now)
            files = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority.certificate}
            assert manifest["data"].keys() == files.keys()
            manifest = {**manifest, "data": {key: _encoded(value.decode()) for key, value in files.items()}}
        made.append(manifest)
    return made


def _leaf(authority: Authority, role: str, now: datetime.datetime) -> Pair:
    return authority.issue([tls_identity(role, NAME, NAMESPACE)], [], now, LIFETIME)


def _registry(manifest: Manifest) -> str:
    resource = BY_KIND[manifest["kind"]]
    folder = {"Service": "services/specs"}.get(resource.kind, resource.plural)
    parts = ["registry", *([GROUP] if resource.group == GROUP else []), folder, NAMESPACE, manifest["metadata"]["name"]]
    return "/" + "/".join(parts)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
