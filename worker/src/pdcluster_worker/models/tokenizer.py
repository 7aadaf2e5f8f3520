"""Text to token ids and back, and the chat template, from a checkpoint folder or a .gguf file.

Immutable once loaded. Decoding works on bytes: `pieces[id]` is what a token adds to the text, so that a stream of
tokens is a stream of bytes whose UTF-8 may be incomplete at any point. A token that the tokenizer lacks, or a special
one, adds nothing.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel

from pdcluster_worker.errors import CheckpointError, ValidationError
from pdcluster_worker.models.tokenizer_defaults import GenerationDefaults, folder_defaults, gguf_defaults, read_json
from pdcluster_worker.models.tokenizer_gguf import gguf_tokenizer, read_metadata
from pdcluster_worker.models.tokenizer_template import ChatTemplate

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


class Tokenizer:
    """`backend` is None for a checkpoint that has no tokenizer: then prompts must be token ids."""

    def __init__(
        self,
        backend: Backend | None,
        template: ChatTemplate | None,
        defaults: GenerationDefaults,
        prefix: Sequence[int] = (),
    ) -> None:
        self._backend = backend
        self._template = template
        self._prefix = list(prefix)
        self.defaults = defaults
        self.pieces = _pieces(backend) if backend is not None else []
        self.longest_piece = _longest_piece(backend) if backend is not None else 0
        """A text of n characters has at least n / longest_piece tokens; 0 when nothing can be said."""
        self._special = _special_names(backend) if backend is not None else {}

    def encode(self, text: str) -> list[int]:
        """A plain prompt, with the special tokens that the tokenizer puts around it."""
        return self._prefix + self._require().encode(text, add_special_tokens=True).ids

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """A conversation. The template writes its own special tokens: none is added."""
        backend = self._require()
        if self._template is None:
            raise ValidationError("the model has no chat template: use /v1/completions", "messages")
        return backend.encode(self._template.render(messages), add_special_tokens=False).ids

    def piece(self, token: int) -> bytes:
        """What the token adds to the text."""
        return self.pieces[token] if token < len(self.pieces) else b""

    def name(self, token: int) -> bytes:
        """What a person would call the token, special ones included; empty for an id that the tokenizer lacks."""
        return self.piece(token) or self._special.get(token, "").encode()

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self.piece, tokens)).decode("utf-8", errors="replace")

    def _require(self) -> Backend:
        if self._backend is None:
            raise ValidationError("the model has no tokenizer: send the prompt as token ids", "prompt")
        return self._backend


def load_tokenizer(path: Path) -> Tokenizer:
    """`path`: a checkpoint folder or one .gguf file. CheckpointError names the file at fault."""
    if path.is_file():
        return _from_gguf(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    return _from_folder(path)


def _from_gguf(path: Path) -> Tokenizer:
    metadata = read_metadata(path)
    defaults = gguf_defaults(metadata)
    if "tokenizer.ggml.model" not in metadata:
        return Tokenizer(None, None, defaults)
    tokens = metadata.get("tokenizer.ggml.tokens") or []

    def text(name: str) -> str:
        index = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return tokens[index] if isinstance(index, int) and index < len(tokens) else ""

    special = {
        "bos_token": text("bos"),
        "eos_token": text("eos"),
        "pad_token": text("padding"),
        "unk_token": text("unknown"),
    }
    source = metadata.get("tokenizer.chat_template")
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", metadata["tokenizer.ggml.model"] == "llama")
    return Tokenizer(
        gguf_tokenizer(metadata, path),
        ChatTemplate(source, special) if isinstance(source, str) else None,
        defaults,
        prefix=[bos] if add_bos and isinstance(bos, int) else [],
    )


def _from_folder(path: Path) -> Tokenizer:
    defaults, settings = folder_defaults(path), read_json(path / "tokenizer_config.json")
    backend = _folder_backend(path)
    if backend is None:
        return Tokenizer(None, None, defaults)
    source = _folder_template(path, settings)
    names = {**read_json(path / "special_tokens_map.json"), **settings}
    special = {name: _content(names.get(name)) for name in _SPECIAL_NAMES if _content(names.get(name))}
    return Tokenizer(backend, ChatTemplate(source, special) if source is not None else None, defaults)


def _folder_backend(path: Path) -> Backend | None:
    file = path / "tokenizer.json"
    if file.exists():
        try:
            return Backend.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{file}: {error}") from error
    if not (path / "tokenizer.model").exists() and not (path / "vocab.json").exists():
        return None
    # Only old checkpoints come here; the import takes seconds. All that it needs is in the folder: no hub is asked.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    try:
        backend = AutoTokenizer.from_pretrained(str(path), use_fast=True, local_files_only=True).backend_tokenizer
    except Exception as error:  # conversion raises what it likes
        raise CheckpointError(f"{path}: the tokenizer cannot be converted: {error}") from error
    if not isinstance(backend, Backend):
        raise CheckpointError(f"{path}: the tokenizer has no fast form")
    return backend


def _folder_template(path: Path, settings: dict[str, Any]) -> str | None:
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    source = settings.get("chat_template") or read_json(path / "chat_template.json").get("chat_template")
    if isinstance(source, list):  # several named ones
        source = {item.get("name"): item.get("template") for item in source}.get("default")
    return source if isinstance(source, str) else None


def _content(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _special_names(backend: Backend) -> dict[int, str]:
    return {index: token.content for index, token in backend.get_added_tokens_decoder().items() if token.special}


def _longest_piece(backend: Backend) -> int:
    """Only where nothing is dropped before the text is cut up, and every byte counts."""
    if backend.normalizer is not None or not isinstance(backend.decoder, ByteLevel):
        return 0
    return max(map(len, backend.get_vocab(with_added_tokens=True)), default=0)


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes each byte as a printable character; this is the way back."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    return table | {chr(256 + offset): byte for offset, byte in enumerate(others)}


def _pieces(backend: Backend) -> list[bytes]:
    """For each id the bytes that it adds to a text."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    pieces = [b""] * (max(vocabulary.values(), default=-1) + 1)
    state = msgspec.json.decode(backend.decoder.__getstate__()) if backend.decoder is not None else {}
    kinds = {step["type"] for step in state.get("decoders", [state]) if "type" in step}
    table = _byte_of_character()
    for token, index in vocabulary.items():
        if "ByteLevel" in kinds:
            known = all(character in table for character in token)
            pieces[index] = bytes(table[character] for character in token) if known else token.encode()
        elif kinds & {"ByteFallback", "Metaspace", "Replace"}:
            is_byte = "ByteFallback" in kinds and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
            pieces[index] = bytes([int(token[3:5], 16)]) if is_byte else token.replace("▁", " ").encode()
        else:
            pieces[index] = backend.decode([index], skip_special_tokens=False).encode()
    for index, added in backend.get_added_tokens_decoder().items():
        pieces[index] = b"" if added.special else added.content.encode()
    return pieces
