"""The model families that this worker computes. A new one is a module with these three names, listed here."""

from collections.abc import Callable
from dataclasses import dataclass

from pdcluster_worker.models import ernie45, llama
from pdcluster_worker.models.config import Fields, ModelConfig


@dataclass(frozen=True, slots=True)
class Family:
    architecture: str
    model_type: str
    read_config: Callable[[Fields], ModelConfig]


FAMILIES = tuple(Family(module.ARCHITECTURE, module.MODEL_TYPE, module.read_config) for module in (ernie45, llama))


def family_of(fields: Fields) -> Family:
    """By the architecture that a config.json names; by its model type where it names none."""
    architectures = fields.strings("architectures")
    model_type = fields.string("model_type", "")
    for family in FAMILIES:
        if family.architecture in architectures or (not architectures and family.model_type == model_type):
            return family
    name = ", ".join(architectures) or model_type or "none named"
    known = ", ".join(family.architecture for family in FAMILIES)
    raise fields.error("architectures", f"unknown architecture {name}; supported: {known}")
