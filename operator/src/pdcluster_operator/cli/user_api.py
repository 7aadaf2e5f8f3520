"""The API server as a person uses it through `pdc`: the operator's calls in another name, and watches."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
from kubernetes.aio import client as kubernetes_client

from pdcluster_operator.follow import lines
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.resources import Manifest, Resource

MANAGER = "pdc"
CALL_SECONDS = 30.0
WATCH_SECONDS = 240
"""After that the API server ends a watch, and it is taken up where it ended."""
SILENCE_SECONDS = WATCH_SECONDS + 30.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole collection: what is not in it is not there."""

    items: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    """One object that is new, changed or gone."""

    manifest: Manifest
    gone: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind; empty: all."""

    labels: str = ""
    fields: str = ""

    def query(self) -> dict[str, str]:
        found = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in found.items() if value}


class UserApi(Kube):
    """Nothing fences a person's writes."""

    def __init__(self, opened: kubernetes_client.ApiClient) -> None:
        super().__init__(opened, remaining=lambda: float("inf"), timeout=CALL_SECONDS, manager=MANAGER)
        self._opened = opened

    async def post(self, resource: Resource, namespace: str | None, manifest: Manifest) -> Manifest:
        """Of a kind that is only asked: an access review."""
        return await self._write("POST", resource, resource.path(namespace), {}, manifest)

    async def select(self, resource: Resource, namespace: str | None, selection: Selection) -> list[Manifest]:
        """As `list`, by fields too."""
        return list((await self._call("GET", resource, resource.path(namespace), selection.query()))["items"])

    async def rehearse(self, resource: Resource, manifest: Manifest) -> None:
        """What storing the manifest would do, without doing it: it is made, or takes the place of what is there."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        found, query = await self.get(resource, namespace, name), {"fieldManager": self._manager, "dryRun": "All"}
        if found is None:
            await self._write("POST", resource, resource.path(namespace), query, manifest)
            return
        metadata = {**manifest["metadata"], "resourceVersion": found["metadata"]["resourceVersion"]}
        await self._write("PUT", resource, resource.path(namespace, name), query, {**manifest, "metadata": metadata})

    async def follow(
        self, resource: Resource, namespace: str | None, selection: Selection
    ) -> AsyncIterator[Listed | Changed]:
        """The collection, and then its changes without end. Raises KubeError when it cannot be listed."""
        path, query = resource.path(namespace), selection.query()
        while True:
            listed = await self._call("GET", resource, path, query)
            yield Listed(tuple(listed["items"]))
            version: str | None = listed["metadata"]["resourceVersion"]
            while version is not None:
                began, version = version, None
                async for event in self._events(path, {**query, "resourceVersion": began}):
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield Changed(event["object"], event["type"] == "DELETED")

    async def _events(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The events of one watch until it ends for any reason; one that the server has no history for has none."""
        settings = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        request = await self._opened.param_serialize(
            "GET",
            path,
            query_params=list({**query, **settings}.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        try:
            answer = await self._opened.call_api(*request, _request_timeout=SILENCE_SECONDS)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return
        try:
            if answer.status == HTTPStatus.GONE:
                return
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise KubeError(answer.status, "", f"the watch of {path} was refused")
            async for line in lines(answer.response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event
        except (TimeoutError, aiohttp.ClientError, OSError):
            return
        finally:
            answer.response.close()


async def if_allowed(asked: Any) -> Any:
    """What a call gives; None when the caller may not, or the kind does not exist."""
    try:
        return await asked
    except KubeError as error:
        if error.status in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            return None
        raise
