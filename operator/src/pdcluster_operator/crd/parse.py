"""Document to typed model, with the path of every bad field."""

import difflib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pdcluster_operator.crd.base import RULES_BROKEN, SpecModel
from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.load import load_document
from pdcluster_operator.crd.scaler import PDRoleScaler
from pdcluster_operator.errors import Problem, SpecError

Location = tuple[int | str, ...]
Parsed = TypeVar("Parsed", PDCluster, PDRoleScaler)

MESSAGES = {
    "missing": "is required",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_long": "must have at most {max_length} entries",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
}


def parse(document: dict[str, Any]) -> PDCluster:
    """The typed model of a PDCluster. Raises SpecError naming every bad field."""
    return _parse(document, PDCluster)


def parse_scaler(document: dict[str, Any]) -> PDRoleScaler:
    return _parse(document, PDRoleScaler)


def parse_text(text: str) -> PDCluster:
    """The one PDCluster in YAML or JSON text. Raises SpecError."""
    return parse(load_document(text))


def _parse(document: dict[str, Any], model: type[Parsed]) -> Parsed:
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        details = error.errors(include_url=False)
    pruned = _without_nulls(document, [entry["loc"] for entry in details if _is_null(entry)])
    if pruned is not None:
        return _parse(pruned, model)
    raise SpecError([problem for entry in details for problem in _problems(entry, model)])


def _is_null(entry: ErrorDetails) -> bool:
    """A null where none is allowed counts as absent, as the API server has it. Unknown fields stay errors."""
    return entry["input"] is None and entry["type"] not in ("extra_forbidden", RULES_BROKEN) and bool(entry["loc"])


def _without_nulls(document: dict[str, Any], places: Sequence[Location]) -> dict[str, Any] | None:
    """A copy without the nulls at `places`; None when there are none in mappings."""
    copy, removed = json.loads(json.dumps(document)), False
    for place in places:
        holder = copy
        for step in place[:-1]:
            holder = holder[step]
        if isinstance(holder, dict) and isinstance(place[-1], str) and place[-1] in holder:
            del holder[place[-1]]
            removed = True
    return copy if removed else None


def _problems(entry: ErrorDetails, model: type[SpecModel]) -> list[Problem]:
    location, context = entry["loc"], entry.get("ctx", {})
    if entry["type"] == RULES_BROKEN:
        return [Problem(_path((*location, *field.split("."))), message) for field, message in context["broken"]]
    if entry["type"] == "extra_forbidden":
        return [Problem(_path(location), _unknown(location, model))]
    if entry["type"] == "value_error":
        return [Problem(_path(location), str(context["error"]))]
    template = MESSAGES.get(entry["type"])
    return [Problem(_path(location), template.format(**context) if template else entry["msg"])]


def _path(location: Location) -> str:
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and step != "[key]":
            text += f".{step}" if text else step
    return text


def _unknown(location: Location, model: type[SpecModel]) -> str:
    known = _fields_at(location[:-1], model)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"unknown field (did you mean {near[0]}?)" if near else "unknown field"


def _fields_at(location: Location, model: type[BaseModel]) -> list[str]:
    """The names of the fields of the model found by walking `location` down from `model`."""
    for step in location:
        if isinstance(step, int):
            continue
        field = next((entry for entry in model.model_fields.values() if entry.alias == step), None)
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return [entry.alias or name for name, entry in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((found for found in inner if found is not None), None)
