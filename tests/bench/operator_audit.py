"""The API server's audit log, read as it grows: who asked for what, when, and what became of it.

`AuditLog` is the one writer of its records; times are the API server's own clock, in Unix seconds.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
CREATED = 201
REFUSED = 400


class User(msgspec.Struct):
    username: str = ""


class Target(msgspec.Struct):
    """Of a request; requests for no resource have none."""

    resource: str = ""
    subresource: str = ""
    name: str = ""


class Outcome(msgspec.Struct):
    code: int = 0


class Record(msgspec.Struct, rename="camel"):
    """One request that was answered."""

    verb: str
    request_received_timestamp: datetime
    stage_timestamp: datetime
    user: User = msgspec.field(default_factory=User)
    object_ref: Target = msgspec.field(default_factory=Target)
    response_status: Outcome = msgspec.field(default_factory=Outcome)

    @property
    def resource(self) -> str:
        return self.object_ref.resource

    @property
    def name(self) -> str:
        return self.object_ref.name

    @property
    def is_write(self) -> bool:
        return self.verb in WRITES

    @property
    def is_lease(self) -> bool:
        return self.resource == "leases"

    @property
    def is_event(self) -> bool:
        return self.resource == "events"

    @property
    def made_an_object(self) -> bool:
        return self.response_status.code == CREATED and not (self.object_ref.subresource or self.is_event)

    @property
    def made_a_pod(self) -> bool:
        return self.made_an_object and self.resource == "pods"

    @property
    def was_served(self) -> bool:
        return self.response_status.code < REFUSED

    @property
    def received(self) -> float:
        return self.request_received_timestamp.timestamp()

    @property
    def done(self) -> float:
        return self.stage_timestamp.timestamp()


class AuditLog:
    """All answered requests of one user so far; `read` takes in what was logged since."""

    def __init__(self, path: Path, user: str) -> None:
        self._log = path.open("rb")
        self._user = user
        self._mark = f'"username":"{user}"'.encode()
        self._rest = b""
        self._decoder = msgspec.json.Decoder(Record)
        self.records: list[Record] = []

    def read(self) -> list[Record]:
        """What is new, Leases apart."""
        lines = (self._rest + self._log.read()).split(b"\n")
        self._rest = lines.pop()
        new = [self._decoder.decode(line) for line in lines if self._mark in line]
        new = [record for record in new if record.user.username == self._user and not record.is_lease]
        self.records += new
        return new

    def close(self) -> None:
        self._log.close()


def first_after(records: list[Record], since: float, holds: Callable[[Record], bool]) -> float | None:
    """When the first of those requests that was received after `since` was answered."""
    return min((record.done for record in records if record.received >= since and holds(record)), default=None)


def counts(records: Iterator[Record]) -> dict[str, int]:
    """How many, by verb and resource."""
    found: dict[str, int] = {}
    for record in records:
        part = f"/{record.object_ref.subresource}" if record.object_ref.subresource else ""
        key = f"{record.verb} {record.resource}{part}"
        found[key] = found.get(key, 0) + 1
    return dict(sorted(found.items()))
