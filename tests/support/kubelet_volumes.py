"""The volumes of one pod as folders on this host; kept up to date as their ConfigMaps, Secrets and tokens change."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cluster_client import Client
from kubelet_environment import NotYetError, field_value

Manifest = dict[str, Any]
Files = dict[str, bytes]


async def data_of(client: Client, kind: str, name: str) -> Files | None:
    """What a ConfigMap or a Secret holds, by key; None when there is no such object."""
    found = await client.find(f"v1/{kind}", name)
    if found is None:
        return None
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return {key: value.encode() for key, value in (found.get("data") or {}).items()} | binary


class Volumes:
    """The folders of one pod's volumes, below `folder`; raises NotYetError while something they name is missing."""

    def __init__(self, client: Client, pod: Manifest, folder: Path) -> None:
        self._client = client
        self._pod = pod
        self._folder = folder
        self._tokens: dict[str, str] = {}

    def path(self, name: str) -> Path:
        """Where a volume of the pod is on this host."""
        volume = next(volume for volume in self._pod["spec"].get("volumes", []) if volume["name"] == name)
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        return self._folder / name

    async def refresh(self) -> None:
        """Makes every folder, and writes what changed since the last call; a file is replaced, never rewritten."""
        for volume in self._pod["spec"].get("volumes", []):
            if "hostPath" in volume:
                continue
            folder = self._folder / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            if "emptyDir" not in volume:
                wanted = {name: content async for name, content in self._files(volume)}
                _write(folder, wanted)

    async def _files(self, volume: Manifest) -> AsyncIterator[tuple[str, bytes]]:
        if "projected" in volume:
            sources = volume["projected"]["sources"]
        elif "secret" in volume:
            secret = volume["secret"]
            sources = [{"secret": {**secret, "name": secret["secretName"]}}]
        else:
            sources = [{key: volume[key]} for key in ("configMap", "downwardAPI") if key in volume]
        if not sources:
            raise NotYetError(f"volume {volume['name']} of a kind that this node does not have")
        for source in sources:
            for name, content in (await self._source(source)).items():
                yield name, content

    async def _source(self, source: Manifest) -> Files:
        if "serviceAccountToken" in source:
            return {source["serviceAccountToken"]["path"]: (await self._token(source["serviceAccountToken"])).encode()}
        if "downwardAPI" in source:
            items = source["downwardAPI"]["items"]
            return {item["path"]: field_value(self._pod, item["fieldRef"]["fieldPath"]).encode() for item in items}
        kind = "Secret" if "secret" in source else "ConfigMap"
        reference = source.get("secret") or source["configMap"]
        data = await data_of(self._client, kind, reference["name"])
        if data is None:
            if reference.get("optional"):
                return {}
            raise NotYetError(f"{kind} {reference['name']}")
        if "items" not in reference:
            return data
        return {item["path"]: data[item["key"]] for item in reference["items"] if item["key"] in data}

    async def _token(self, source: Manifest) -> str:
        """A real token, bound to this pod, asked for once per audience."""
        audience = source.get("audience", "")
        if audience not in self._tokens:
            pod = self._pod["metadata"]
            path = self._client.path("v1/ServiceAccount", self._pod["spec"]["serviceAccountName"], "token")
            request = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [audience] if audience else [],
                    "expirationSeconds": source.get("expirationSeconds", 3607),
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod["name"], "uid": pod["uid"]},
                },
            }
            self._tokens[audience] = (await self._client.call("POST", path, {}, request))["status"]["token"]
        return self._tokens[audience]


def _write(folder: Path, wanted: Files) -> None:
    for name, content in wanted.items():
        target = folder / name
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.new")
        unfinished.write_bytes(content)
        unfinished.replace(target)
    for stale in folder.iterdir():
        if stale.is_file() and stale.name not in wanted:
            stale.unlink()
