"""What a container is told about itself: environment, downward API, and `$(NAME)` in commands. Pure."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Manifest = dict[str, Any]
Lookup = Callable[[str, str], Mapping[str, str] | None]
"""(`ConfigMap` or `Secret`, name) to its decoded data; None when there is no such object."""

REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")
KEYED = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")
SUFFIXES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9}


class NotYetError(Exception):
    """Something that the pod refers to does not exist: it waits, as in ContainerCreating."""


def environment(pod: Manifest, container: Manifest, lookup: Lookup) -> dict[str, str]:
    """The variables of a container, in the order that lets later ones refer to earlier ones."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        kind, reference = _object_of(source)
        data = lookup(kind, reference["name"])
        if data is None and not reference.get("optional"):
            raise NotYetError(f"{kind} {reference['name']}")
        found |= {source.get("prefix", "") + key: value for key, value in (data or {}).items()}
    for entry in container.get("env", []):
        value = entry.get("value", "") if "valueFrom" not in entry else _value(pod, container, entry, lookup)
        if value is not None:
            found[entry["name"]] = expand(value, found) if "valueFrom" not in entry else value
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` when the name is known; `$$` stands for a dollar sign."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else variables.get(match[2], match[0])

    return REFERENCE.sub(replacement, text)


def command(container: Manifest, variables: Mapping[str, str]) -> list[str]:
    """The command line of a container; a command is required, since there is no image to have a default."""
    words: Sequence[str] = [*container.get("command", []), *container.get("args", [])]
    return [expand(word, variables) for word in words]


def field_value(pod: Manifest, path: str) -> str:
    """A field of the downward API."""
    keyed = KEYED.match(path)
    if keyed:
        return str(pod["metadata"].get(keyed[1], {}).get(keyed[2], ""))
    node: Any = pod
    for step in path.split("."):
        node = node.get(step, "") if isinstance(node, dict) else ""
    if isinstance(node, dict):
        return "\n".join(f'{key}="{value}"' for key, value in sorted(node.items()))
    return str(node)


def quantity(text: str) -> float:
    """A resource quantity as a number."""
    if text.endswith("m"):
        return float(text[:-1]) / 1000
    for suffix, factor in SUFFIXES.items():
        if text.endswith(suffix):
            return float(text.removesuffix(suffix)) * factor
    return float(text)


def _value(pod: Manifest, container: Manifest, entry: Manifest, lookup: Lookup) -> str | None:
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
        amount = quantity(container.get("resources", {}).get(kind, {}).get(name, "0"))
        divisor = quantity(source["resourceFieldRef"].get("divisor", "1") or "1") or 1
        return str(int(-(-amount // divisor)))
    kind = "Secret" if "secretKeyRef" in source else "ConfigMap"
    reference = source.get("secretKeyRef") or source["configMapKeyRef"]
    data = lookup(kind, reference["name"])
    if data is not None and reference["key"] in data:
        return data[reference["key"]]
    if reference.get("optional"):
        return None
    raise NotYetError(f"{kind} {reference['name']} key {reference['key']}")


def _object_of(source: Manifest) -> tuple[str, Manifest]:
    return ("Secret", source["secretRef"]) if "secretRef" in source else ("ConfigMap", source["configMapRef"])
