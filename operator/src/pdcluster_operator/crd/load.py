"""Text to document: YAML or JSON, exactly one, without duplicate keys, and nothing but what JSON can say."""

import json
from typing import Any

import yaml

from pdcluster_operator.errors import Problem, SpecError


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: time stamps stay text, keys are unique strings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_document(text: str) -> dict[str, Any]:
    """The one document in `text`.

    Raises SpecError, with line and column where the parser knows them.
    """
    try:
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.YAMLError as error:
        raise SpecError([Problem("", f"not valid YAML or JSON: {_describe(error)}")]) from error
    except RecursionError as error:
        raise SpecError([Problem("", "not valid YAML or JSON: nested too deeply")]) from error
    if len(documents) != 1:
        raise SpecError([Problem("", f"exactly one document is expected, found {len(documents)}")])
    return _json_only(documents[0])


def _json_only(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise SpecError([Problem("", f"a mapping is expected, not {type(document).__name__}")])
    try:
        copy: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError([Problem("", f"a value that JSON cannot hold: {error}")]) from error
    return copy


def _describe(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return f"{error.problem or error.context}{place}"
    return " ".join(str(error).split())
