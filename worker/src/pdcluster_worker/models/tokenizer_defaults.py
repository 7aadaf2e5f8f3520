"""What a checkpoint says about generation: end tokens, sampling defaults and limits, from its files."""

from pathlib import Path
from typing import Any

import msgspec

from pdcluster_worker.errors import CheckpointError


class GenerationDefaults(msgspec.Struct, frozen=True):
    """None: the checkpoint does not say. `end_tokens` is the union of what its files name."""

    end_tokens: tuple[int, ...] = ()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    max_model_length: int | None = None
    vocab_size: int | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Empty when the file is absent. CheckpointError when it is not a JSON object."""
    if not path.exists():
        return {}
    try:
        value = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: not a JSON object")
    return value


def folder_defaults(path: Path) -> GenerationDefaults:
    config, generation = read_json(path / "config.json"), read_json(path / "generation_config.json")
    return GenerationDefaults(
        end_tokens=_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        temperature=_number(generation, "temperature"),
        top_p=_number(generation, "top_p"),
        top_k=_whole(generation, "top_k"),
        min_p=_number(generation, "min_p"),
        repetition_penalty=_number(generation, "repetition_penalty"),
        max_model_length=_whole(config, "max_position_embeddings"),
        vocab_size=_whole(config, "vocab_size"),
    )


def gguf_defaults(metadata: dict[str, Any]) -> GenerationDefaults:
    architecture = metadata.get("general.architecture", "")
    tokens = metadata.get("tokenizer.ggml.tokens") or []
    return GenerationDefaults(
        end_tokens=_ids(*(metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom"))),
        max_model_length=_whole(metadata, f"{architecture}.context_length"),
        vocab_size=_whole(metadata, f"{architecture}.vocab_size") or len(tokens) or None,
    )


def _ids(*values: object) -> tuple[int, ...]:
    found: set[int] = set()
    for value in values:
        found.update(item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int))
    return tuple(sorted(found))


def _number(source: dict[str, Any], name: str) -> float | None:
    value = source.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(source: dict[str, Any], name: str) -> int | None:
    value = source.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
