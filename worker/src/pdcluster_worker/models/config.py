"""What a checkpoint says about its model, typed and checked: the same for Hugging Face files and GGUF.

Read once, immutable. Everything that the model code cannot do exactly is refused here, by name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pdcluster_worker.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Long wavelengths are slowed by `factor`, short ones kept, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, slots=True)
class LinearScaling:
    factor: float


@dataclass(frozen=True, slots=True)
class ListedScaling:
    """One divisor per frequency, as GGUF stores it: [head_dim / 2]."""

    divisors: tuple[float, ...]


RotaryScaling = Llama3Scaling | LinearScaling | ListedScaling


@dataclass(frozen=True, slots=True)
class RotaryConfig:
    """`interleaved`: the checkpoint's Q and K rows pair neighbours (2i, 2i + 1), not the halves (i, i + d/2)."""

    theta: float
    interleaved: bool
    scaling: RotaryScaling | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A dense decoder: RMS norms before attention and MLP, grouped queries, SwiGLU, rotary positions."""

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position: int
    rotary: RotaryConfig
    tied_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    eos_token_ids: tuple[int, ...]

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def q_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim


class Fields:
    """Typed access to one JSON object of a file; every error names the file and the field."""

    def __init__(self, file: str, values: Mapping[str, object], prefix: str = "") -> None:
        self.file = file
        self._values = values
        self._prefix = prefix

    def error(self, name: str, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.file}: {self._prefix}{name} {problem}")

    def has(self, name: str) -> bool:
        """Present and not null."""
        return self._values.get(name) is not None

    def raw(self, name: str) -> object:
        return self._values.get(name)

    def _value(self, name: str, default: object) -> object:
        value = self._values.get(name)
        if value is not None:
            return value
        if default is None:
            raise self.error(name, "is missing")
        return default

    def integer(self, name: str, default: int | None = None, minimum: int = 1) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"must be an integer, not {value!r}")
        if value < minimum:
            raise self.error(name, f"must be at least {minimum}, not {value}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(name, f"must be a number, not {value!r}")
        if not 0 < value < float("inf"):
            raise self.error(name, f"must be positive and finite, not {value}")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def string(self, name: str, default: str) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {value!r}")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        """An integer or a list of them; absent or null is none."""
        value = self._values.get(name)
        values = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in values):
            raise self.error(name, f"must be an integer or a list of integers, not {value!r}")
        return tuple(cast("list[int]", values))

    def strings(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name)
        values = [] if value is None else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            raise self.error(name, f"must be a list of strings, not {value!r}")
        return tuple(cast("list[str]", values))

    def object(self, name: str) -> "Fields | None":
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(name, f"must be an object, not {value!r}")
        return Fields(self.file, value, f"{self._prefix}{name}.")


def read_json(path: Path) -> Fields:
    """The file's top-level object. Raises CheckpointError when it is missing, unreadable or something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return Fields(str(path), values)
