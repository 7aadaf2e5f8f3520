"""The label selector of a question, as an autoscaler sends it. Pure.

Strict: a selector that is half understood would sum the wrong workers, so that what is not understood is refused.
"""

import re
from dataclasses import dataclass

from pdcluster_operator.errors import OperatorError

NAMES = ("cluster", "role")
"""The labels of a value; both must be asked for."""

_BETWEEN = re.compile(r",(?![^(]*\))")
_EQUAL = re.compile(r"^(?P<name>[\w./-]+)\s*={1,2}\s*(?P<value>[\w.-]*)$")
_AMONG = re.compile(r"^(?P<name>[\w./-]+)\s+in\s*\((?P<values>[\w.,\s-]*)\)$")


class SelectorError(OperatorError):
    """The selector is not one that can be answered; the message names the requirement."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which values are asked for: any of these clusters, in any of these roles."""

    clusters: frozenset[str]
    roles: frozenset[str]


def parse(text: str) -> Wanted:
    """Raises SelectorError for anything but `=`, `==` and `in` on `cluster` and `role`, and when one of them lacks."""
    found: dict[str, frozenset[str]] = {}
    for part in filter(None, (part.strip() for part in _BETWEEN.split(text))):
        name, values = _requirement(part)
        if name not in NAMES:
            raise SelectorError(f"label {name!r} is not one of these metrics: they have {' and '.join(NAMES)}")
        found[name] = found.get(name, values) & values
    for name in NAMES:
        if not found.get(name):
            raise SelectorError(f"the selector {text!r} names no {name}: both cluster and role are needed")
    return Wanted(clusters=found["cluster"], roles=found["role"])


def _requirement(part: str) -> tuple[str, frozenset[str]]:
    if equal := _EQUAL.match(part):
        return equal["name"], frozenset({equal["value"]} - {""})
    if among := _AMONG.match(part):
        return among["name"], frozenset(value.strip() for value in among["values"].split(",")) - {""}
    raise SelectorError(f"{part!r} is not understood: only `=`, `==` and `in (...)` are")
