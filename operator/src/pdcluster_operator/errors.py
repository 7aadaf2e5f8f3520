"""The operator's errors.

OperatorError
├── SpecError           a manifest is wrong: every bad field with its path
├── LocalError          `pdc run` cannot start or go on here: a port in use, a missing file, no GPU
├── StartError          a pod of `pdc run` failed before it was ready: its reason
└── EndpointError       `pdc chat` could not talk to the endpoint, or was refused by it
"""

from collections.abc import Sequence
from dataclasses import dataclass


class OperatorError(Exception):
    """Base of all errors raised on purpose. The message is for people."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One wrong field. `path` as a person writes it, `spec.prefill.engine.blockSize`; empty: the whole document."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class SpecError(OperatorError):
    """All the problems of one document, at least one."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class LocalError(OperatorError):
    pass


class StartError(OperatorError):
    pass


class EndpointError(OperatorError):
    pass
