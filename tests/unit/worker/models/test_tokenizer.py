"""Tokenizers and chat templates of checkpoint folders and GGUF files."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pdcluster_worker.errors import CheckpointError, ValidationError
from pdcluster_worker.models.tokenizer import load_tokenizer
from pdcluster_worker.models.tokenizer_gguf import read_metadata
from pdcluster_worker.models.tokenizer_template import ChatTemplate

ROOT = Path(__file__).parents[4]
TINY = ROOT / "tests/golden/ernie45-tiny"
SMOLLM = ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"

CHARACTERS = ["Ġ", *"abcdehlortw", "1", "2"]


def gguf(path: Path, **changes: Any) -> Path:
    """A file with a small byte-level tokenizer and no tensors. `changes`: dots of keys are written __; None removes."""
    tokens = ["<|end|>", "<|start|>", *CHARACTERS, "he", "ll", "hell", "12", "Ġw"]
    entries: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.context_length": 128,
        "llama.vocab_size": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(tokens) - 2)],
        "tokenizer.ggml.merges": ["h e", "l l", "he ll", "1 2", "Ġ w"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.chat_template": "{% for m in messages %}{{ bos_token }}{{ m.content }}{{ eos_token }}{% endfor %}",
    }
    for key, value in changes.items():
        entries[key.replace("__", ".")] = value
    present = {key: value for key, value in entries.items() if value is not None}
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, len(present))
    path.write_bytes(header + b"".join(_string(key) + _value(value) for key, value in present.items()))
    return path


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _string(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
    form, kind = ("f", 6) if isinstance(value[0], float) else ("i", 5)
    return struct.pack("<IIQ", 9, kind, len(value)) + struct.pack(f"<{len(value)}{form}", *value)


def test_a_folder() -> None:
    tokenizer = load_tokenizer(TINY)
    ids = tokenizer.encode("héllo 12")
    assert tokenizer.decode(ids) == "héllo 12"
    assert b"".join(tokenizer.piece(token) for token in ids) == "héllo 12".encode()
    assert tokenizer.defaults.end_tokens == (2,)
    assert tokenizer.defaults.vocab_size == 512
    assert tokenizer.defaults.max_model_length == 4096


def test_special_tokens_have_a_name_but_no_text() -> None:
    tokenizer = load_tokenizer(TINY)
    assert (tokenizer.piece(2), tokenizer.name(2)) == (b"", b"</s>")
    assert (tokenizer.piece(511), tokenizer.name(511)) == (b"", b"")
    assert tokenizer.piece(10**9) == b""


def test_the_template_of_a_folder() -> None:
    tokenizer = load_tokenizer(TINY)
    ids = tokenizer.chat([{"role": "user", "content": "hi"}])
    assert b"".join(map(tokenizer.name, ids)) == b"<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.demo_model
@pytest.mark.parametrize("case", json.loads((ROOT / "tests/golden/smollm2/golden.json").read_text())["cases"])
def test_the_demo_model(case: dict[str, Any]) -> None:
    tokenizer = load_tokenizer(SMOLLM)
    assert tokenizer.chat(case["messages"]) == case["prompt"]
    assert tokenizer.decode(case["greedy"]) == case["text"]
    assert tokenizer.defaults.end_tokens == (2,)


def test_gguf_merges_and_single_digits(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(gguf(tmp_path / "m.gguf"))
    names = [tokenizer.name(token).decode() for token in tokenizer.encode("hello w12")]
    assert names == ["hell", "o", " w", "1", "2"]
    plain = load_tokenizer(gguf(tmp_path / "n.gguf", tokenizer__ggml__pre="gpt-2"))
    assert [plain.name(token).decode() for token in plain.encode("w12")] == ["w", "12"]
    assert tokenizer.defaults.end_tokens == (0,)
    assert (tokenizer.defaults.max_model_length, tokenizer.defaults.vocab_size) == (128, 64)


def test_gguf_special_tokens_in_text(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(gguf(tmp_path / "m.gguf"))
    assert tokenizer.encode("a<|end|>b")[1] == 0
    assert tokenizer.decode(tokenizer.encode("a<|end|>b")) == "ab"


def test_no_second_beginning_after_a_template(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(gguf(tmp_path / "m.gguf", tokenizer__ggml__add_bos_token=True))
    assert tokenizer.encode("a")[0] == 1
    assert tokenizer.chat([{"role": "user", "content": "a"}]) == [1, tokenizer.encode("a")[1], 0]
    without = load_tokenizer(gguf(tmp_path / "n.gguf", tokenizer__ggml__add_bos_token=False))
    assert without.encode("a")[0] != 1


def test_gguf_end_tokens_are_a_union(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(gguf(tmp_path / "m.gguf", tokenizer__ggml__eot_token_id=7))
    assert tokenizer.defaults.end_tokens == (0, 7)


def test_gguf_sentencepiece(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", "<0xC3>", "<0xA9>", "▁", "a", "b", "ab", "▁ab"]
    file = gguf(
        tmp_path / "m.gguf",
        tokenizer__ggml__model="llama",
        tokenizer__ggml__pre=None,
        tokenizer__ggml__merges=None,
        tokenizer__ggml__tokens=tokens,
        tokenizer__ggml__token_type=[2, 3, 3, 6, 6, 1, 1, 1, 1, 1],
        tokenizer__ggml__scores=[0.0, 0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -5.0],
    )
    tokenizer = load_tokenizer(file)
    ids = tokenizer.encode("abé")
    assert [tokens[token] for token in ids] == ["<s>", "▁ab", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids) == " abé"


def test_a_model_without_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 9, "max_position_embeddings": 5, "eos_token_id": [3, 4]}')
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.7, "top_k": 5}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.defaults.end_tokens == (2, 3, 4)
    assert (tokenizer.defaults.temperature, tokenizer.defaults.top_k, tokenizer.defaults.top_p) == (0.7, 5, None)
    with pytest.raises(ValidationError, match="token ids"):
        tokenizer.encode("text")
    assert tokenizer.decode([1, 2]) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer__ggml__tokens": None}, "tokenizer.ggml.tokens is missing"),
        ({"tokenizer__ggml__model": "bert"}, "'bert' is not supported"),
        ({"tokenizer__ggml__pre": "unheard-of"}, "'unheard-of' is not supported"),
        ({"tokenizer__ggml__merges": ["q q"]}, "merges"),
        ({"tokenizer__chat_template": "{% for %}"}, "chat template"),
    ],
)
def test_what_a_gguf_file_may_have_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(gguf(tmp_path / "m.gguf", **changes))


def test_truncated_at_any_byte(tmp_path: Path) -> None:
    whole = gguf(tmp_path / "m.gguf").read_bytes()
    short = tmp_path / "short.gguf"
    for length in range(0, len(whole), 7):
        short.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="short"):
            read_metadata(short)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such"):
        load_tokenizer(tmp_path / "none")


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_tokenizer(tmp_path)


class TestTemplates:
    def test_what_templates_use(self) -> None:
        source = (
            "{% for m in messages %}{% if m.role == 'x' %}{% continue %}{% endif %}{{ m.content | tojson }}{% endfor %}"
        )
        messages = [{"role": "x", "content": "no"}, {"role": "user", "content": 'é"'}]
        assert ChatTemplate(source, {}).render(messages) == '"é\\""'

    def test_a_refusal_is_the_clients_mistake(self) -> None:
        template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
        with pytest.raises(ValidationError, match="roles must alternate"):
            template.render([{"role": "user", "content": "a"}])

    def test_templates_cannot_reach_out(self) -> None:
        for source in (
            "{{ ''.__class__.__mro__[1].__subclasses__() }}",
            "{{ messages.append(1) }}",
            "{% include 'x' %}",
        ):
            with pytest.raises(ValidationError):
                ChatTemplate(source, {}).render([{"role": "user", "content": "a"}])
