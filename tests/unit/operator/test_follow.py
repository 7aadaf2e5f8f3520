"""List and watch against an API server that the test plays, answer by answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from pdcluster_operator import follow as module
from pdcluster_operator.follow import Follower, Scope, one
from pdcluster_operator.resources import CONFIG_MAP, POD

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.0)


class Answer:
    """An HTTP answer; as a watch it gives its lines, and then ends, or stays open for good."""

    def __init__(self, status: int, lines: list[dict[str, Any]], *, ends: bool | Exception = True) -> None:
        self.status = status
        self.response = self
        self.content = self
        self._watched = self._lines(lines, ends)
        self._body = json.dumps(lines[0] if lines else {}).encode()

    async def _lines(self, lines: list[dict[str, Any]], ends: bool | Exception) -> AsyncIterator[bytes]:
        for line in lines:
            for part in re.split(r"(?<=,)", json.dumps(line) + "\n"):
                yield part.encode()
        if isinstance(ends, Exception):
            raise ends
        if not ends:
            await asyncio.Event().wait()

    def iter_any(self) -> AsyncIterator[bytes]:
        return self._watched

    async def read(self) -> bytes:
        return self._body

    def close(self) -> None:
        pass


class Server:
    """Gives the answers in their order; `asked` are the queries."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, str]] = []

    async def param_serialize(self, *_: Any, query_params: list[tuple[str, str]], **__: Any) -> tuple[Any, ...]:
        self.asked.append(dict(query_params))
        return ()

    async def call_api(self, *_: Any, **__: Any) -> Answer:
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def listing(version: str, *names: str, following: str = "") -> Answer:
    metadata = {"resourceVersion": version, **({"continue": following} if following else {})}
    return Answer(200, [{"metadata": metadata, "items": [thing(name, version) for name in names]}])


def thing(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}}


def event(kind: str, name: str, version: str) -> dict[str, Any]:
    return {"type": kind, "object": thing(name, version)}


SILENCE = Answer(200, [], ends=False)


async def told(server: Server, number: int, scope: Scope | None = None) -> list[tuple[str, str]]:
    """The first changes, as news and name."""
    found: list[tuple[str, str]] = []
    changes = Follower(server).changes(scope or Scope(POD))
    async with asyncio.timeout(5):
        async for change in changes:
            found.append((change.news.value, change.manifest.get("metadata", {}).get("name", "")))
            if len(found) == number:
                break
    await changes.aclose()
    return found


async def test_pages_are_one_listing() -> None:
    server = Server(listing("5", "a", following="more"), listing("5", "b"), SILENCE)
    assert await told(server, 4) == [("Listing", ""), ("Changed", "a"), ("Changed", "b"), ("Complete", "")]
    assert server.asked[1]["continue"] == "more"


async def test_a_watch_that_ends_is_resumed_where_it_was() -> None:
    changes = [event("MODIFIED", "a", "7"), event("BOOKMARK", "", "9")]
    server = Server(listing("5", "a"), Answer(200, changes), Answer(200, [event("DELETED", "a", "11")]))
    assert (await told(server, 5))[3:] == [("Changed", "a"), ("Gone", "a")]
    assert [query["resourceVersion"] for query in server.asked[1:]] == ["5", "9"]


async def test_a_watch_that_falls_silent_is_resumed_where_it_was() -> None:
    silent = Answer(200, [event("ADDED", "b", "8")], ends=aiohttp.SocketTimeoutError())
    server = Server(listing("5", "a"), silent, Answer(200, [event("DELETED", "a", "11")]))
    assert (await told(server, 5))[3:] == [("Changed", "b"), ("Gone", "a")]
    assert [query["resourceVersion"] for query in server.asked[1:]] == ["5", "8"]


async def test_a_version_that_is_too_old_means_a_new_listing_and_no_loss() -> None:
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    server = Server(listing("5", "a"), Answer(200, [gone]), listing("20", "b"))
    assert (await told(server, 6))[3:] == [("Listing", ""), ("Changed", "b"), ("Complete", "")]


@pytest.mark.parametrize(
    "failure", [OSError("no route"), TimeoutError(), Answer(403, [{"message": "may not"}]), Answer(500, [{}])]
)
async def test_what_fails_is_told_as_lost_and_tried_again(failure: Answer | Exception) -> None:
    server = Server(failure, listing("5", "a"), SILENCE)
    assert await told(server, 5) == [
        ("Listing", ""),
        ("Lost", ""),
        ("Listing", ""),
        ("Changed", "a"),
        ("Complete", ""),
    ]


async def test_a_watch_that_is_never_answered_is_lost() -> None:
    server = Server(listing("5", "a"), TimeoutError(), listing("6"), SILENCE)
    assert (await told(server, 6))[3:] == [("Lost", ""), ("Listing", ""), ("Complete", "")]


async def test_a_single_object_is_there_or_not() -> None:
    changes = Answer(200, [event("ADDED", "x", "6"), event("DELETED", "x", "7")], ends=False)
    server = Server(listing("5"), changes)
    states = Follower(server).states(one(CONFIG_MAP, "n", "x"))
    found = []
    async with asyncio.timeout(5):
        async for state in states:
            found.append(state and state["metadata"]["name"])
            if len(found) == 3:
                break
    await states.aclose()
    assert found == [None, "x", None]
    assert server.asked[0]["fieldSelector"] == "metadata.name=x"
