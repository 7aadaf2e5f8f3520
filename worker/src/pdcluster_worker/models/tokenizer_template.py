"""Chat templates: Jinja in a sandbox, with the names that templates of published checkpoints use.

A template comes with the checkpoint, so it is run as untrusted code: immutable sandbox, no loader, no files.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pdcluster_worker.errors import CheckpointError, ValidationError


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


class ChatTemplate:
    """A compiled template. `special` holds what templates may print: bos_token, eos_token, ..."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise CheckpointError(f"chat template: {error}") from error
        self._special = dict(special)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt's text, ending where the assistant begins. ValidationError when the template refuses them."""
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=True, tools=None, documents=None, **self._special
            )
        except (jinja2.TemplateError, TypeError, KeyError, ValueError) as error:
            raise ValidationError(f"the model's chat template refuses the messages: {error}", "messages") from error
