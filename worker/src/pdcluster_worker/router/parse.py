"""From an HTTP body to a checked request object, or one APIError that names the field."""

from typing import Any, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pdcluster_worker.router.errors import APIError, bad_request

RequestT = TypeVar("RequestT", bound=BaseModel)

MAX_NAME = 200
"""Characters of what a client wrote that are said back."""
_ALTERNATIVES = {"str", "constrained-str", "int", "list"}


def parse_body(body: bytes, kind: type[RequestT]) -> RequestT:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object", code="invalid_json")
    _refuse_parts(value)
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise _as_api_error(error.errors(include_url=False, include_context=False)) from error


def _refuse_parts(value: dict[str, Any]) -> None:
    """Content parts other than text get a message of their own: a list of failed alternatives says nothing."""
    messages = value.get("messages")
    for index, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        for place, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                param = f"messages[{index}].content[{place}]"
                raise bad_request(f"{param}: parts of type {kind!r} are not supported, only text", param)


def _as_api_error(errors: list[ErrorDetails]) -> APIError:
    """The deepest error of the first field: of a union's alternatives, the one that got furthest."""
    field = errors[0]["loc"][:1]
    error = max((each for each in errors if each["loc"][:1] == field), key=lambda each: _rank(each))
    message, param = error["msg"].removeprefix("Value error, "), _path(error["loc"])
    if error["type"] == "value_error" and not param:
        return bad_request(message, message.split(" ", 1)[0])
    if error["type"] == "extra_forbidden":
        return bad_request(f"unknown or unsupported parameter: {param}", param, "unknown_parameter")
    if error["type"] == "none_required":
        return bad_request(f"{param} is not supported", param, "unsupported_parameter")
    if error["type"] == "missing":
        return bad_request(f"missing required parameter: {param}", param, "missing_required_parameter")
    return bad_request(f"{param}: {message}", param, "invalid_value")


def _rank(error: ErrorDetails) -> tuple[bool, int]:
    return not error["type"].endswith("_type"), len(error["loc"])


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; the names that pydantic gives to a union's alternatives are left out."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.partition("[")[0] not in _ALTERNATIVES or not text:
            text += f".{part}" if text else part
    return text[:MAX_NAME]
