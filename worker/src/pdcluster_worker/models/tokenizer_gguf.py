"""A tokenizer from the metadata of a .gguf file: no tensor is read, so this takes a fraction of a second.

Two kinds exist in the Llama family: `gpt2` (byte-level BPE, with a named way to split text before merging) and `llama`
(SentencePiece BPE, whose merges are implied by the scores of the pieces).
"""

import mmap
import struct
from pathlib import Path
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from pdcluster_worker.errors import CheckpointError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4

_LLAMA3 = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


class _Reader:
    """A cursor over the header of a GGUF file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.offset = 0

    def scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.offset)
        self.offset += struct.calcsize("<" + form)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if length > len(self.data) - self.offset:
            raise struct.error("a string runs over the end of the file")
        raw = self.data[self.offset : self.offset + length]
        self.offset += length
        return raw.decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.scalar(_SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if count > len(self.data) - self.offset:
            raise struct.error("an array runs over the end of the file")
        if inner in (_STRING, _ARRAY):
            return [self.value(inner) for _ in range(count)]
        form = f"<{count}{_SCALARS[inner]}"
        items = list(struct.unpack_from(form, self.data, self.offset))
        self.offset += struct.calcsize(form)
        return items


def read_metadata(path: Path) -> dict[str, Any]:
    """The key-value part of the file. CheckpointError when it is no GGUF file or ends too early."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise CheckpointError(f"{path}: not a GGUF file")
            reader = _Reader(data)
            reader.offset = 4
            version = reader.scalar("I")
            if version not in (2, 3):
                raise CheckpointError(f"{path}: GGUF version {version} is not supported (2 and 3 are)")
            _tensors, count = reader.scalar("Q"), reader.scalar("Q")
            return {reader.string(): reader.value(reader.scalar("I")) for _ in range(count)}
    except (struct.error, KeyError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: the GGUF header cannot be read: {error}") from error


def gguf_tokenizer(metadata: dict[str, Any], path: Path) -> Tokenizer:
    """CheckpointError names the missing or unknown entry."""
    kind = metadata.get("tokenizer.ggml.model")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        raise CheckpointError(f"{path}: tokenizer.ggml.tokens is missing")
    if kind == "gpt2":
        tokenizer = _byte_level(metadata, tokens, path)
    elif kind == "llama":
        tokenizer = _sentencepiece(metadata, tokens, path)
    else:
        raise CheckpointError(f"{path}: tokenizer.ggml.model {kind!r} is not supported (gpt2 and llama are)")
    types = metadata.get("tokenizer.ggml.token_type") or [_NORMAL] * len(tokens)
    added = [
        AddedToken(token, special=type_ == _CONTROL, normalized=False)
        for token, type_ in zip(tokens, types, strict=False)
        if type_ in (_CONTROL, _USER_DEFINED)
    ]
    tokenizer.add_special_tokens([token for token in added if token.special])
    tokenizer.add_tokens([token for token in added if not token.special])
    return tokenizer


def _byte_level(metadata: dict[str, Any], tokens: list[str], path: Path) -> Tokenizer:
    merges = [tuple(merge.split(" ", 1)) for merge in metadata.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        model = models.BPE(vocab=vocabulary, merges=cast("list[tuple[str, str]]", merges), fuse_unk=False)
    except Exception as error:  # the library raises bare Exception for a merge that the vocabulary lacks
        raise CheckpointError(f"{path}: tokenizer.ggml.merges: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = _pre_tokenizer(metadata.get("tokenizer.ggml.pre", "default"), path)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pre_tokenizer(name: str, path: Path) -> pre_tokenizers.PreTokenizer:
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    if name in ("default", "gpt-2", "gpt2"):
        return words
    if name in ("smollm", "starcoder", "refact", "command-r", "codeshell"):
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    if name in ("llama-bpe", "llama-v3", "llama3", "smaug-bpe"):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_LLAMA3), "isolated"), bytes_only])
    if name in ("qwen2", "deepseek-r1-qwen"):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_QWEN2), "isolated"), bytes_only])
    raise CheckpointError(f"{path}: tokenizer.ggml.pre {name!r} is not supported")


def _sentencepiece(metadata: dict[str, Any], tokens: list[str], path: Path) -> Tokenizer:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise CheckpointError(f"{path}: tokenizer.ggml.scores must have one score per token")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    model = models.BPE(
        vocab=vocabulary,
        merges=_merges_of_scores(vocabulary, scores),
        unk_token=tokens[unknown] if unknown < len(tokens) else None,
        fuse_unk=True,
        byte_fallback=True,
    )
    tokenizer = Tokenizer(model)
    steps: list[normalizers.Normalizer] = [normalizers.Replace(" ", "▁")]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        steps.insert(0, normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _merges_of_scores(vocabulary: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """A piece may be merged from any two pieces; the piece with the higher score is merged first."""
    merges = []
    for piece, index in vocabulary.items():
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((-scores[index], vocabulary[left], vocabulary[right], left, right))
    merges.sort()
    return [(left, right) for *_, left, right in merges]
