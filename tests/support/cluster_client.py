"""One user's view of a cluster under test: the official client's transport, plus waiting for a state by watching.

A kind is named `v1/Pod` or `apps/v1/StatefulSet`; objects are plain dicts, as they are on the wire.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes.aio import client as api
from kubernetes.aio import config

Manifest = dict[str, Any]

IRREGULAR = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses", "Endpoints": "endpoints"}
CLUSTER_WIDE = {
    "Namespace",
    "Node",
    "CustomResourceDefinition",
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "PersistentVolume",
}


class ApiError(Exception):
    """A refusal by the API server: the HTTP status, its reason (`Invalid`, `Conflict`, ...) and its words."""

    def __init__(self, status: int, answer: Manifest) -> None:
        super().__init__(f"{status} {answer.get('reason')}: {answer.get('message')}")
        self.status = status
        self.reason = str(answer.get("reason", ""))
        self.message = str(answer.get("message", ""))


@dataclass(frozen=True)
class Change:
    """Either a whole collection, or one object that changed or went."""

    listed: list[Manifest] | None = None
    changed: Manifest = field(default_factory=dict)
    deleted: bool = False


class Client:
    """Calls for one namespace; objects of kinds without a namespace are reached the same way. Errors are ApiError."""

    def __init__(self, connection: api.ApiClient, namespace: str) -> None:
        self._connection = connection
        self.namespace = namespace

    def within(self, namespace: str) -> "Client":
        """The same user, another namespace."""
        return Client(self._connection, namespace)

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        query = {"dryRun": "All"} if dry_run else {}
        return await self.call("POST", self.path(_kind(manifest)), query, manifest)

    async def apply(self, manifest: Manifest, manager: str = "test", *, dry_run: bool = False) -> Manifest:
        """Server-side apply, with force."""
        query = {"fieldManager": manager, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        path = self.path(_kind(manifest), manifest["metadata"]["name"])
        return await self.call("PATCH", path, query, manifest, "application/apply-patch+yaml")

    async def merge(self, kind: str, name: str, patch: Manifest, subresource: str = "") -> Manifest:
        """A JSON merge patch of an object, or of a subresource such as `status` or `scale`."""
        return await self.call("PATCH", self.path(kind, name, subresource), {}, patch, "application/merge-patch+json")

    async def replace(self, manifest: Manifest) -> Manifest:
        return await self.call("PUT", self.path(_kind(manifest), manifest["metadata"]["name"]), {}, manifest)

    async def get(self, kind: str, name: str, subresource: str = "") -> Manifest:
        return await self.call("GET", self.path(kind, name, subresource))

    async def find(self, kind: str, name: str) -> Manifest | None:
        """The object, or None when there is none."""
        try:
            return await self.get(kind, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, kind: str, selector: str = "") -> list[Manifest]:
        answer = await self.call("GET", self.path(kind), {"labelSelector": selector} if selector else {})
        return list(answer["items"])

    async def delete(self, kind: str, name: str, **options: Any) -> None:
        """Deletes in the background; `options` are fields of DeleteOptions, such as gracePeriodSeconds."""
        body = {"propagationPolicy": "Background", **options}
        await self.call("DELETE", self.path(kind, name), {}, body)

    async def wait(
        self, kind: str, name: str, holds: Callable[[Manifest | None], bool], seconds: float = 60.0
    ) -> Manifest | None:
        """The first state of the object for which `holds` is true; None stands for an object that is not there.

        Raises TimeoutError, with the last state seen, after `seconds`.
        """
        last: Manifest | None = None
        try:
            async with asyncio.timeout(seconds):
                async for last in self.states(kind, name):
                    if holds(last):
                        return last
        except TimeoutError as late:
            raise TimeoutError(f"{kind} {name} was after {seconds} s still:\n{_brief(last)}") from late
        raise AssertionError("a watch is opened again whenever it ends")

    async def states(self, kind: str, name: str) -> AsyncIterator[Manifest | None]:
        """Every state of one object from now on, without end."""
        async for change in self.follow(self.path(kind), {"fieldSelector": f"metadata.name={name}"}):
            if change.listed is not None:
                yield change.listed[0] if change.listed else None
            else:
                yield None if change.deleted else change.changed

    async def follow(self, path: str, query: Mapping[str, str]) -> AsyncIterator["Change"]:
        """A collection and then its changes, without end; listed anew whenever the server closes the watch."""
        while True:
            listed = await self.call("GET", path, query)
            yield Change(listed=listed["items"])
            since = {**query, "watch": "true", "resourceVersion": listed["metadata"]["resourceVersion"]}
            answer = await self._send("GET", path, since, None, "application/json")
            try:
                async for line in answer.response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        break
                    yield Change(changed=event["object"], deleted=event["type"] == "DELETED")
            finally:
                answer.response.close()

    async def call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        """One request, parsed."""
        answer = await self._send(verb, path, query or {}, body, content_type)
        return dict(json.loads(await answer.read()))

    def path(self, kind: str, name: str = "", subresource: str = "") -> str:
        """The path of a kind's collection, of one object, or of a part of it."""
        version, _, bare = kind.rpartition("/")
        parts = ["api" if version == "v1" else "apis", version]
        if bare not in CLUSTER_WIDE:
            parts += ["namespaces", self.namespace]
        parts += [IRREGULAR.get(bare, f"{bare.lower()}s"), name, subresource]
        return "/" + "/".join(part for part in parts if part)

    async def _send(
        self, verb: str, path: str, query: Mapping[str, str], body: Manifest | None, content_type: str
    ) -> Any:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        request = await self._connection.param_serialize(
            verb,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = await self._connection.call_api(*request)
        if answer.status >= 400:
            raise ApiError(answer.status, _status(await answer.read()))
        return answer


@contextlib.asynccontextmanager
async def connect(kubeconfig: Path, namespace: str, user: str = "", *groups: str) -> AsyncIterator[Client]:
    """A client of the kubeconfig's user, or of any other `user` whom that user may impersonate."""
    settings = api.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=settings)
    settings.client_session_kwargs = {"trust_env": False}
    async with api.ApiClient(settings) as connection:
        if user:
            connection.set_default_header("Impersonate-User", user)
        for group in groups:
            connection.set_default_header("Impersonate-Group", group)
        yield Client(connection, namespace)


def _brief(found: Manifest | None) -> str:
    """An object without the notes about who set which field."""
    if found is None:
        return "not there"
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return json.dumps({**found, "metadata": metadata})


def _kind(manifest: Manifest) -> str:
    return f"{manifest['apiVersion']}/{manifest['kind']}"


def _status(body: bytes) -> Manifest:
    """The Status object that the API server sends with an error; proxies in between may send plain text."""
    try:
        return dict(json.loads(body))
    except ValueError:
        return {"message": body.decode(errors="replace")}
