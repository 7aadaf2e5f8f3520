"""Watches: taken up where they ended, begun anew where there is no history, and refused where they are not allowed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pdcluster_operator.cli.user_api import Changed, Listed, Selection, UserApi, if_allowed
from pdcluster_operator.kube import KubeError
from pdcluster_operator.resources import POD


class Stream:
    """What aiohttp's reader gives, in pieces that do not end where lines do."""

    def __init__(self, text: bytes) -> None:
        self._pieces = [text[start : start + 7] for start in range(0, len(text), 7)]

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class Reply:
    def __init__(self, status: int, body: Any, stream: bytes = b"") -> None:
        self.status, self._body = status, json.dumps(body).encode()
        self.content, self.closed = Stream(stream), False
        self.response = self

    async def read(self) -> bytes:
        return self._body

    def getheader(self, _: str) -> None:
        return None

    def close(self) -> None:
        self.closed = True


class Connection:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self, *replies: Reply | Exception) -> None:
        self._replies, self.asked = list(replies), []

    async def param_serialize(self, verb: str, path: str, **options: Any) -> tuple[Any, ...]:
        self.asked.append(dict(options["query_params"]))
        return (verb, path)

    async def call_api(self, *_: Any, **__: Any) -> Reply:
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def listed(version: int, *items: dict[str, Any]) -> Reply:
    return Reply(200, {"metadata": {"resourceVersion": str(version)}, "items": list(items)})


def watch(*events: tuple[str, dict[str, Any]]) -> Reply:
    lines = [json.dumps({"type": kind, "object": found}).encode() + b"\n" for kind, found in events]
    return Reply(200, {}, b"".join(lines))


def followed(connection: Connection, number: int) -> list[Listed | Changed]:
    async def take() -> list[Listed | Changed]:
        found = []
        async for change in UserApi(connection).follow(POD, "prod", Selection(fields="metadata.name=a")):
            found.append(change)
            if len(found) == number:
                break
        return found

    return asyncio.run(take())


def versions(connection: Connection) -> list[str | None]:
    """Where each watch began; None stands for a list."""
    return [query.get("resourceVersion") for query in connection.asked]


def test_a_watch_is_taken_up_where_it_ended():
    first = watch(("ADDED", thing("b", 6)), ("DELETED", thing("a", 7)), ("BOOKMARK", thing("", 9)))
    connection = Connection(listed(5, thing("a", 4)), first, watch(("MODIFIED", thing("b", 11))))
    found = followed(connection, 4)
    assert found == [
        Listed((thing("a", 4),)),
        Changed(thing("b", 6), gone=False),
        Changed(thing("a", 7), gone=True),
        Changed(thing("b", 11), gone=False),
    ]
    assert versions(connection) == [None, "5", "9"]
    assert connection.asked[0] == {"fieldSelector": "metadata.name=a"}
    assert first.closed


@pytest.mark.parametrize(
    "lost",
    [
        watch(("ERROR", {"code": 410})),
        Reply(410, {}),
        TimeoutError(),
        ConnectionResetError(),
        watch(),
    ],
    ids=["error event", "gone", "time out", "reset", "nothing"],
)
def test_a_watch_without_history_begins_anew(lost):
    connection = Connection(listed(5), lost, listed(20, thing("a", 19)))
    assert followed(connection, 2) == [Listed(()), Listed((thing("a", 19),))]
    assert versions(connection) == [None, "5", None]


def test_a_watch_that_is_not_allowed_ends_at_once():
    with pytest.raises(KubeError, match="the watch of /api/v1/namespaces/prod/pods was refused"):
        followed(Connection(listed(5), Reply(403, {})), 2)


@pytest.mark.parametrize(("status", "found"), [(403, None), (404, None)])
def test_what_may_not_be_read_is_none(status, found):
    async def ask() -> Any:
        return await if_allowed(UserApi(Connection(Reply(status, {"reason": "r", "message": "m"}))).list(POD, "prod"))

    assert asyncio.run(ask()) is found


def test_other_refusals_stay():
    async def ask() -> Any:
        return await if_allowed(UserApi(Connection(Reply(500, {"reason": "r", "message": "m"}))).list(POD, "prod"))

    with pytest.raises(KubeError, match="r: m"):
        asyncio.run(ask())
