"""The API server as the operator uses it: the few calls there are, each with a deadline and a typed error.

Writes go through a fence, which says how long a write may still be under way: an operator that is no longer the leader,
or soon will not be, writes nothing. Nothing is retried here; the queue tries a whole reconciliation again.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from pdcluster_operator.errors import OperatorError
from pdcluster_operator.resources import BY_KIND, Manifest, Resource

FIELD_MANAGER = "pdcluster-operator"
NEVER_A_VERSION = "1"
"""A resourceVersion that no stored object has: with it, an apply creates and never changes what is there."""


UNTYPED = "failed to create typed patch object"
"""A field that the kind does not have, or of another type: server-side apply answers that with status 500."""


class KubeError(OperatorError):
    """The API server refused, or did not answer: `status` 0. `message` is its own words."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def is_missing(self) -> bool:
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def is_conflict(self) -> bool:
        return self.status == HTTPStatus.CONFLICT

    @property
    def is_permanent(self) -> bool:
        """The same request will be refused again: the manifest is wrong, or the right to send it is missing."""
        refused = {HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY}
        return self.status in refused or UNTYPED in self.message


class NotLeadingError(OperatorError):
    """A write was due while the lease was not surely ours: it was not sent."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request, for those who count them."""

    verb: str
    kind: str
    status: int


class Kube:
    """Calls of one connection. `remaining` gives the seconds that a write may take from now on.

    `manager` is in whose name fields are written.
    """

    def __init__(
        self,
        connection: kubernetes_client.ApiClient,
        *,
        remaining: Callable[[], float],
        timeout: float = 30.0,
        concurrency: int = 16,
        on_call: Callable[[Call], None] = lambda call: None,
        manager: str = FIELD_MANAGER,
    ) -> None:
        self._connection = connection
        self._remaining = remaining
        self._timeout = timeout
        self._slots = asyncio.Semaphore(concurrency)
        self._on_call = on_call
        self._manager = manager

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """The object, or None when there is none."""
        try:
            return await self._call("GET", resource, resource.path(namespace, name))
        except KubeError as error:
            if error.is_missing:
                return None
            raise

    async def list(
        self, resource: Resource, namespace: str | None = None, selector: str = "", *, fields: str = ""
    ) -> list[Manifest]:
        """All objects of a kind that have the labels, of one namespace or of all; items lack kind and apiVersion."""
        given = {"labelSelector": selector, "fieldSelector": fields}
        query = {name: value for name, value in given.items() if value}
        return list((await self._call("GET", resource, resource.path(namespace), query))["items"])

    async def apply(
        self, manifest: Manifest, *, subresource: str = "", only_create: bool = False, version: str | None = None
    ) -> Manifest:
        """Server-side apply under the operator's name, with force.

        `only_create` makes an existing object of that name a conflict; `version` makes an object that changed since a
        conflict. Both are decided by the API server, in the write itself.
        """
        resource = BY_KIND[manifest["kind"]]
        metadata = manifest["metadata"]
        if guard := NEVER_A_VERSION if only_create else version:
            manifest = {**manifest, "metadata": {**metadata, "resourceVersion": guard}}
        path = resource.path(metadata["namespace"], metadata["name"], subresource)
        query = {"fieldManager": self._manager, "force": "true"}
        return await self._write("PATCH", resource, path, query, manifest, "application/apply-patch+yaml")

    async def create(self, manifest: Manifest) -> Manifest:
        """POST: for objects whose fields the operator must not own afterwards."""
        resource = BY_KIND[manifest["kind"]]
        path = resource.path(manifest["metadata"]["namespace"])
        return await self._write("POST", resource, path, {"fieldManager": self._manager}, manifest)

    async def merge(self, resource: Resource, namespace: str, name: str, patch: Manifest) -> Manifest:
        """A JSON merge patch; with `metadata.uid` or `resourceVersion` in it, only of that very object."""
        path, query = resource.path(namespace, name), {"fieldManager": self._manager}
        return await self._write("PATCH", resource, path, query, patch, "application/merge-patch+json")

    async def replace(self, manifest: Manifest) -> Manifest:
        """PUT; the manifest's resourceVersion is the guard."""
        resource = BY_KIND[manifest["kind"]]
        path = resource.path(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        return await self._write("PUT", resource, path, {"fieldManager": self._manager}, manifest)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Deletes that very object, in the background; one that is gone or was replaced is no error."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._write("DELETE", resource, resource.path(namespace, name), {}, body)
        except KubeError as error:
            if not (error.is_missing or error.is_conflict):
                raise

    async def _write(
        self,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str],
        body: Manifest,
        content_type: str = "application/json",
    ) -> Manifest:
        """A call that changes something, within what is left of the lease when it is really sent."""
        return await self._call(verb, resource, path, query, body, content_type, limit=self._remaining)

    async def _call(
        self,
        verb: str,
        resource: Resource,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        limit: Callable[[], float] = lambda: float("inf"),
    ) -> Manifest:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        request = await self._connection.param_serialize(
            verb,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        async with self._slots:
            seconds = min(self._timeout, limit())
            if seconds <= 0:
                raise NotLeadingError(f"{verb} {path} was not sent: the lease is not surely ours")
            status, text, retry_after = await self._exchange(request, seconds)
        self._on_call(Call(verb, resource.kind, status))
        if status >= HTTPStatus.BAD_REQUEST or status == 0:
            raise _error(status, text, retry_after)
        return dict(json.loads(text))

    async def _exchange(self, request: Any, seconds: float) -> tuple[int, bytes, str | None]:
        """Status, body and Retry-After of one request; status 0 and the reason when there was no answer in time."""
        try:
            async with asyncio.timeout(seconds):
                answer = await self._connection.call_api(*request, _request_timeout=seconds)
                return answer.status, await answer.read(), answer.getheader("Retry-After")
        except TimeoutError:
            return 0, f"no answer within {seconds:.1f} s".encode(), None
        except (aiohttp.ClientError, OSError) as error:
            return 0, f"{type(error).__name__}: {error}".encode(), None


def _error(status: int, body: bytes, retry_after: str | None) -> KubeError:
    """What the Status object says; proxies in between may answer with plain text."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        answer = {"message": body.decode(errors="replace")}
    with contextlib.suppress(TypeError, ValueError):
        return KubeError(status, answer.get("reason", ""), answer.get("message", ""), float(retry_after or ""))
    return KubeError(status, answer.get("reason", ""), answer.get("message", ""))


@contextlib.asynccontextmanager
async def connection(
    kubeconfig: str | None = None, context: str | None = None
) -> AsyncIterator[kubernetes_client.ApiClient]:
    """A connection with the pod's service account, or with a context of a kubeconfig, by default its current one."""
    settings = kubernetes_client.Configuration()
    if kubeconfig:
        await kubernetes_config.load_kube_config(kubeconfig, context, client_configuration=settings)
    else:
        kubernetes_config.load_incluster_config(client_configuration=settings)
    settings.client_session_kwargs = {"trust_env": False}
    settings.connection_pool_maxsize = 0  # Each watch holds a connection, of every kind in every namespace: no limit.
    async with kubernetes_client.ApiClient(settings) as opened:
        yield opened
