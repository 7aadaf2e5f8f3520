"""How the lists of a PodSpec merge in a podTemplate, and the shape that they must have for that. Pure.

The API server takes any podTemplate, so that a wrong one would otherwise only show when it is laid over a pod.
"""

from typing import Any

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""Field name of a list in a PodSpec to the field by which its items are told apart."""


def mergeable(spec: dict[str, Any]) -> dict[str, Any]:
    """The same; ValueError names the first list that cannot be merged."""
    _check(spec, "")
    return spec


def _check(node: Any, place: str) -> None:
    if isinstance(node, list):
        for number, item in enumerate(node):
            _check(item, f"{place}[{number}]")
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        where = f"{place}.{name}" if place else name
        if name in MERGE_KEYS:
            _check_list(value, MERGE_KEYS[name], where)
        _check(value, where)


def _check_list(value: Any, key: str, where: str) -> None:
    if not isinstance(value, list):
        raise ValueError(f"{where} must be a list")
    for number, item in enumerate(value):
        if not isinstance(item, dict) or not isinstance(item.get(key), str | int):
            raise ValueError(f"{where}[{number}] must be a mapping with the field {key}")
