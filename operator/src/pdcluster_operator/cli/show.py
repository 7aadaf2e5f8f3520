"""How answers reach people and programs: tables, JSON, YAML, one line per step of a wait."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from rich.console import Console, RenderableType

from pdcluster_operator.cli.options import Output

WIDE = 200
"""Columns of a table that goes to a file or a pipe: it is not cut for a terminal that is not there."""


def console() -> Console:
    """Standard output, with colours only where it is a terminal."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)


def as_text(document: Mapping[str, Any], output: Output) -> str:
    if output is Output.YAML:
        plain = json.loads(json.dumps(document))
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120).rstrip()
    return json.dumps(document, indent=2, ensure_ascii=False)


def show(output: Output, table: RenderableType, document: Mapping[str, Any]) -> None:
    """The one or the other, to standard output."""
    if output is Output.TABLE:
        console().print(table)
    else:
        print(as_text(document, output))


def say(line: str) -> None:
    """A step of something that takes its time: seen at once, also through a pipe."""
    print(line, flush=True)
