"""The simulated runner's profile file: KV shape and how long steps take. See docs/simulated-runner.md."""

import enum
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from pdcluster_worker.errors import ConfigError

Settings = TypeVar("Settings", bound=msgspec.Struct)
NonNegative = Annotated[float, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]


class Verification(enum.StrEnum):
    """How much of the KV that a step reads is compared with what its tokens say.

    OFF: none is written either; the memory is filled once, so that no page of it is missing or shared.
    """

    OFF = "off"
    SAMPLED = "sampled"
    FULL = "full"


class PrefillTiming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds of the prefill part of a step: base + per_token * tokens + per_token_context * sum(tokens x context)."""

    base: NonNegative = 0.0
    per_token: NonNegative = 0.0
    per_token_context: NonNegative = 0.0


class DecodeTiming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds of the decode part of a step: base + per_request * requests + per_context_token * sum of contexts."""

    base: NonNegative = 0.0
    per_request: NonNegative = 0.0
    per_context_token: NonNegative = 0.0


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`prefill_tokens_per_second` is short for prefill.per_token; None of the shape: from the model's config.json."""

    prefill: PrefillTiming = PrefillTiming()
    decode: DecodeTiming = DecodeTiming()
    prefill_tokens_per_second: Annotated[float, Meta(gt=0)] | None = None
    layers: Positive | None = None
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    dtype: str = "float32"
    vocab_size: Positive | None = None
    max_model_length: Positive | None = None
    eos_token_id: int | None = None
    eos_probability: Annotated[float, Meta(ge=0, le=1)] = 0.0
    load_seconds: NonNegative = 0.0
    verification: Verification = Verification.SAMPLED


class ModelShape(msgspec.Struct, frozen=True):
    """The part of a Hugging Face config.json that the simulated runner takes over. Other fields are ignored."""

    num_hidden_layers: Positive = 4
    num_attention_heads: Positive = 2
    num_key_value_heads: Positive | None = None
    hidden_size: Positive = 128
    head_dim: Positive | None = None
    vocab_size: Positive = 32000
    max_position_embeddings: Positive = 4096
    eos_token_id: int | list[int] | None = 2


def load_profile(path: Path | None) -> Profile:
    """Raises ConfigError naming the file and the field."""
    return Profile() if path is None else _read(path, Profile, "profile")


def load_shape(model_path: Path) -> ModelShape:
    """From config.json in the model's folder; the defaults where there is none."""
    file = model_path / "config.json"
    return _read(file, ModelShape, "model config") if file.is_file() else ModelShape()


def prefill_seconds(profile: Profile, tokens: float, token_contexts: float) -> float:
    timing = profile.prefill
    per_token = timing.per_token
    if profile.prefill_tokens_per_second is not None:
        per_token += 1 / profile.prefill_tokens_per_second
    return timing.base + per_token * tokens + timing.per_token_context * token_contexts if tokens else 0.0


def decode_seconds(profile: Profile, requests: int, context: float) -> float:
    timing = profile.decode
    return timing.base + timing.per_request * requests + timing.per_context_token * context if requests else 0.0


def _read(path: Path, kind: type[Settings], what: str) -> Settings:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{what} {path}: {error}") from error
