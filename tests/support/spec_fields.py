"""Every field of a PDCluster's spec, as the typed model has it: what tables about fields must cover."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from pdcluster_operator.crd.cluster import ClusterSpec


def fields(model: type[BaseModel] = ClusterSpec, place: str = "") -> Iterator[str]:
    """Paths of all fields below `model` that hold a value of their own; a list or a map is one of them."""
    for name, field in model.model_fields.items():
        path = f"{place}.{field.alias or name}" if place else field.alias or name
        inner = _model_of(field.annotation)
        if inner is None:
            yield path
        else:
            yield from fields(inner, path)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that holds one, be it absent at times; None for all else."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    if getattr(annotation, "__origin__", None) in (tuple, dict, list):
        return None
    inner = (_model_of(argument) for argument in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)
