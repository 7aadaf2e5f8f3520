"""List and watch, without end: what exists of one kind, and every change of it.

A watch that ends, or falls silent, is resumed where it was; one that fails is followed by a new listing, after a pause
that grows while the API server does not answer, and as soon as the reader of what is told asks for more.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import aiohttp
import structlog
from kubernetes.aio import client as kubernetes_client

from pdcluster_operator.kube import KubeError
from pdcluster_operator.pace import scatter
from pdcluster_operator.resources import Manifest, Resource

log = structlog.get_logger(__name__)

PAGE = 250
LIST_SECONDS = 30.0
WATCH_SECONDS = 300
SILENT_SECONDS = 90.0
"""The API server sends a bookmark every minute, mostly: a watch that is silent for longer may be dead."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0


class News(StrEnum):
    LISTING = "Listing"
    """A new listing begins: what it does not bring is gone."""
    CHANGED = "Changed"
    GONE = "Gone"
    COMPLETE = "Complete"
    """The listing is over; its version is in `manifest`."""
    LOST = "Lost"
    """Nothing is known of changes until the next Complete; why is in `error`."""


@dataclass(frozen=True, slots=True)
class Change:
    news: News
    manifest: Manifest = field(default_factory=dict)
    error: KubeError | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a kind is followed. `quiet`: who follows it deals with Lost, and it is not logged."""

    resource: Resource
    namespace: str = ""
    label_selector: str = ""
    field_selector: str = ""
    quiet: bool = False

    @property
    def path(self) -> str:
        return self.resource.path(self.namespace or None)

    @property
    def query(self) -> dict[str, str]:
        found = {"labelSelector": self.label_selector, "fieldSelector": self.field_selector}
        return {key: value for key, value in found.items() if value}


def one(resource: Resource, namespace: str, name: str) -> Scope:
    """A single object; a role that names it is enough."""
    return Scope(resource, namespace, field_selector=f"metadata.name={name}")


class _StaleError(Exception):
    """The watch's version is too old: list again."""


class Follower:
    """Follows on one connection. Never raises; failures are logged, and told as Lost."""

    def __init__(self, connection: kubernetes_client.ApiClient) -> None:
        self._connection = connection

    async def changes(self, scope: Scope) -> AsyncIterator[Change]:
        pause = FIRST_PAUSE
        while True:
            try:
                async for change in self._list_and_watch(scope):
                    yield change
                    pause = FIRST_PAUSE if change.news is News.COMPLETE else pause
            except _StaleError:
                continue
            except (KubeError, aiohttp.ClientError, OSError, ValueError) as error:
                lost = error if isinstance(error, KubeError) else KubeError(0, type(error).__name__, str(error))
            if not scope.quiet:
                log.warning("watch_failed", kind=scope.resource.kind, reason=str(lost))
            yield Change(News.LOST, error=lost)
            await asyncio.sleep(scatter(pause, random.random))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def states(self, scope: Scope) -> AsyncIterator[Manifest | None]:
        """Of a single object; None: there is none."""
        present = False
        async for change in self.changes(scope):
            if change.news is News.LISTING:
                present = False
            elif change.news is News.CHANGED:
                present = True
                yield change.manifest
            elif change.news is News.GONE or (change.news is News.COMPLETE and not present):
                yield None

    async def _list_and_watch(self, scope: Scope) -> AsyncIterator[Change]:
        yield Change(News.LISTING)
        page: dict[str, str] = {"limit": str(PAGE)}
        while True:
            listed = await self._list(scope, page)
            for manifest in listed["items"]:
                yield Change(News.CHANGED, manifest)
            following = listed["metadata"].get("continue")
            if not following:
                break
            page["continue"] = following
        version = listed["metadata"]["resourceVersion"]
        yield Change(News.COMPLETE, {"metadata": {"resourceVersion": version}})
        while True:
            # Silence is no loss: the next watch begins after the last thing that was heard.
            with contextlib.suppress(TimeoutError):
                async for kind, manifest in self._watch(scope, version):
                    version = manifest["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield Change(News.GONE if kind == "DELETED" else News.CHANGED, manifest)

    async def _list(self, scope: Scope, page: Mapping[str, str]) -> Manifest:
        answer = await self._get(scope.path, {**scope.query, **page}, aiohttp.ClientTimeout(total=LIST_SECONDS))
        return dict(json.loads(await answer.read()))

    async def _watch(self, scope: Scope, version: str) -> AsyncIterator[tuple[str, Manifest]]:
        """Until the API server ends it. Raises _StaleError, or what went wrong."""
        query = {
            **scope.query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        limit = aiohttp.ClientTimeout(total=WATCH_SECONDS + SILENT_SECONDS, sock_read=SILENT_SECONDS)
        try:
            answer = await self._get(scope.path, query, limit)
        except TimeoutError as error:  # Not silence: nobody has said that the watch began.
            raise KubeError(0, "", f"no answer to a watch within {SILENT_SECONDS:g} s") from error
        try:
            async for line in lines(answer.response.content):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _refusal(event["object"])
                yield event["type"], event["object"]
        finally:
            answer.response.close()

    async def _get(self, path: str, query: Mapping[str, str], limit: aiohttp.ClientTimeout) -> Any:
        request = await self._connection.param_serialize(
            "GET",
            path,
            query_params=list(query.items()),
            header_params={"Accept": "application/json"},
            auth_settings=["BearerToken"],
        )
        answer = await self._connection.call_api(*request, _request_timeout=limit)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            body = (await answer.read()).decode(errors="replace")
            raise _refusal({"code": answer.status, "message": body})
        return answer


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Of any length: aiohttp's own end at 128 KiB, and an object may have more."""
    rest = bytearray()
    async for chunk in content.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *whole, last = bytes(rest).split(b"\n")
            for line in whole:
                yield line
            rest = bytearray(last)


def _refusal(status: Mapping[str, Any]) -> Exception:
    if status.get("code") == HTTPStatus.GONE:
        return _StaleError()
    return KubeError(int(status.get("code") or 0), str(status.get("reason", "")), str(status.get("message", "")))
