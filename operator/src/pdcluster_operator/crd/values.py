"""The scalar types of the manifest. Every string has a limit: the API server estimates the cost of rules from it."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from pdcluster_operator.crd.merge_keys import mergeable

CLUSTER_NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
QUALIFIED_NAME = r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
DECIMAL = r"^[0-9]+(\.[0-9]+)?$"
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
MULTIPLES = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}


def _text_of_integer(value: Any) -> Any:
    """A quantity may be written as an integer: `cpu: 2`."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_quantity(value: str) -> str:
    if not re.fullmatch(QUANTITY, value) or len(value) > 32:
        raise ValueError("must be a quantity such as 2, 500m or 16Gi")
    return value


def amount(quantity: str) -> Decimal:
    """The number that a Kubernetes quantity stands for: `500m` is 0.5, `1Ki` is 1024."""
    number = quantity.rstrip("mkKMGTPEi")
    return Decimal(number) * MULTIPLES[quantity[len(number) :]]


Quantity = Annotated[
    str,
    BeforeValidator(_text_of_integer),
    AfterValidator(_is_quantity),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": QUANTITY, "x-kubernetes-int-or-string": True}
    ),
]
Label = Annotated[str, Field(pattern=DNS_LABEL, min_length=1, max_length=63)]
ObjectName = Annotated[str, Field(pattern=DNS_SUBDOMAIN, min_length=1, max_length=253)]
QualifiedName = Annotated[str, Field(pattern=QUALIFIED_NAME, min_length=1, max_length=317)]
DecimalText = Annotated[str, Field(pattern=DECIMAL, min_length=1, max_length=16)]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Path = Annotated[str, Field(min_length=1, max_length=4096)]
Count = Annotated[int, Field(ge=0, le=1000)]
Seconds = Annotated[int, Field(ge=1, le=86400)]
MapKey = Annotated[str, Field(max_length=317)]
StringMap = Annotated[dict[MapKey, Annotated[str, Field(max_length=256)]], Field(max_length=32)]
QuantityMap = Annotated[dict[MapKey, Quantity], Field(max_length=16)]
EnvironmentName = Annotated[str, Field(pattern=ENVIRONMENT_NAME, max_length=256)]
Overlay = Annotated[
    dict[str, Any],
    AfterValidator(mergeable),
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
