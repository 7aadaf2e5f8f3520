"""The status of both kinds as the API server has it, and the columns of `kubectl get`. Only the operator writes it."""

from typing import Any

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "maxLength": 4096}
_NUMBER: Schema = {"type": "integer"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties}


def _map_of(key: str, limit: int, item: Schema) -> Schema:
    """A list whose items are told apart by `key`."""
    return {
        "type": "array",
        "maxItems": limit,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
        "items": {**item, "required": [key]},
    }


_CONDITION = _object(
    type=_TEXT,
    status={"type": "string", "enum": ["True", "False", "Unknown"]},
    reason=_TEXT,
    message={"type": "string", "maxLength": 32768},
    lastTransitionTime={"type": "string", "format": "date-time"},
    observedGeneration=_NUMBER,
)
_CONDITIONS = _map_of("type", 16, _CONDITION)

_ROLE = _object(
    name=_TEXT,
    desired=_NUMBER,
    effective=_NUMBER,
    replicas=_NUMBER,
    ready=_NUMBER,
    updated=_NUMBER,
    draining=_NUMBER,
    limitedBy=_TEXT,
)

CLUSTER_STATUS: Schema = _object(
    observedGeneration=_NUMBER,
    currentRevision=_TEXT,
    targetRevision=_TEXT,
    endpoint=_TEXT,
    summary=_object(prefill=_TEXT, decode=_TEXT, mixed=_TEXT, router=_TEXT, limitedBy=_TEXT),
    gpus=_object(requested=_NUMBER, existing=_NUMBER),
    ratio=_object(current=_TEXT, min=_TEXT, max=_TEXT),
    roles=_map_of("name", 3, _ROLE),
    rollout=_object(phase=_TEXT, updated=_NUMBER, total=_NUMBER),
    conditions=_CONDITIONS,
)

SCALER_STATUS: Schema = _object(
    observedGeneration=_NUMBER,
    replicas=_NUMBER,
    readyReplicas=_NUMBER,
    effectiveReplicas=_NUMBER,
    limitedBy=_TEXT,
    selector={"type": "string", "maxLength": 1024},
    conditions=_CONDITIONS,
)


def _column(name: str, path: str, kind: str = "string", *, wide: bool = False) -> Schema:
    return {"name": name, "type": kind, "jsonPath": path, **({"priority": 1} if wide else {})}


def _condition(kind: str, part: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{part}'


CLUSTER_COLUMNS = [
    _column("Ready", _condition("Ready")),
    _column("Available", _condition("Available")),
    _column("Prefill", ".status.summary.prefill"),
    _column("Decode", ".status.summary.decode"),
    _column("Mixed", ".status.summary.mixed", wide=True),
    _column("Router", ".status.summary.router", wide=True),
    _column("Ratio", ".status.ratio.current"),
    _column("Revision", ".status.currentRevision"),
    _column("GPUs", ".status.gpus.existing", "integer", wide=True),
    _column("Limited", ".status.summary.limitedBy", wide=True),
    _column("Reason", _condition("Ready", "reason"), wide=True),
    _column("Age", ".metadata.creationTimestamp", "date"),
]

SCALER_COLUMNS = [
    _column("Cluster", ".spec.cluster"),
    _column("Role", ".spec.role"),
    _column("Desired", ".spec.replicas", "integer"),
    _column("Effective", ".status.effectiveReplicas", "integer"),
    _column("Ready", ".status.readyReplicas", "integer"),
    _column("LimitedBy", ".status.limitedBy"),
    _column("Age", ".metadata.creationTimestamp", "date"),
]
