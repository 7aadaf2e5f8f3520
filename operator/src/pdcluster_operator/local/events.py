"""What a child says on stderr: JSON lines, of which three matter to a supervisor. Anything else is its log."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Loading:
    """`fraction` of the start that is done, 0 to 1."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Ready:
    address: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The start failed for `reason`; the process ends by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """`is_problem`: at level warning or above, or no structured line at all."""

    text: str
    is_problem: bool


ChildEvent = Loading | Ready | Failed | LogLine
PROBLEM_LEVELS = {"warning", "error", "critical"}


def read_line(line: str) -> ChildEvent:
    """Never fails: what is not understood is a log line."""
    try:
        fields = json.loads(line)
    except ValueError:
        return LogLine(line, is_problem=False)
    if not isinstance(fields, dict):
        return LogLine(line, is_problem=False)
    match fields.get("event"):
        case "loading" if isinstance(fields.get("fraction"), int | float):
            return Loading(min(max(float(fields["fraction"]), 0.0), 1.0))
        case "ready":
            return Ready(str(fields.get("address", "")))
        case "failed":
            return Failed(str(fields.get("reason", "no reason given")))
    return LogLine(_for_people(fields), is_problem=fields.get("level") in PROBLEM_LEVELS)


def _for_people(fields: dict[str, Any]) -> str:
    """`message key=value ...`, without what every line has."""
    rest = {name: value for name, value in fields.items() if name not in ("event", "level", "timestamp", "logger")}
    return " ".join([str(fields.get("event", "")), *(f"{name}={value}" for name, value in rest.items())]).strip()
