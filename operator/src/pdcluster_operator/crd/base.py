"""What every part of a PDCluster's typed model shares: strict fields in camelCase, and rules.

A rule is one constraint over several fields, written twice side by side: as CEL for the API server and as a Python
method for `pdc run`. The cluster tests run the same table through both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import isfunction
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

RULES_BROKEN = "rules_broken"


@dataclass(frozen=True, slots=True)
class Rule:
    """`field` is where the problem is shown, relative to the model that holds the rule."""

    cel: str
    message: str
    field: str
    method: str
    transition: bool


Method = TypeVar("Method", bound=Callable[..., bool])


def rule(cel: str, message: str, *, field: str = "") -> Callable[[Method], Method]:
    """Mark a method without arguments that says whether the model keeps the rule."""
    return _marker(cel, message, field, transition=False)


def transition(cel: str, message: str, *, field: str = "") -> Callable[[Method], Method]:
    """Mark a method that takes the old model and says whether the change to this one is allowed."""
    return _marker(cel, message, field, transition=True)


def _marker(cel: str, message: str, field: str, *, transition: bool) -> Callable[[Method], Method]:
    def mark(method: Method) -> Method:
        method.__dict__["rule"] = Rule(cel, message, field, method.__name__, transition)
        return method

    return mark


class SpecModel(BaseModel):
    """Immutable; unknown fields, wrong types and broken rules are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=to_camel, allow_inf_nan=False)

    rules: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        marked = {
            name: method.__dict__["rule"]
            for parent in reversed(cls.__mro__)
            for name, method in vars(parent).items()
            if isfunction(method) and "rule" in method.__dict__
        }
        cls.rules = tuple(marked.values())

    @model_validator(mode="after")
    def _keeps_its_rules(self) -> Self:
        broken = [
            (entry.field, entry.message)
            for entry in type(self).rules
            if not entry.transition and not getattr(self, entry.method)()
        ]
        if broken:
            raise PydanticCustomError(RULES_BROKEN, "rules are broken", {"broken": broken})
        return self

    def refused_changes(self, old: Self) -> Iterator[tuple[str, str]]:
        """(field, message) of each transition rule that a change from `old` to this breaks."""
        for entry in type(self).rules:
            if entry.transition and not getattr(self, entry.method)(old):
                yield entry.field, entry.message
