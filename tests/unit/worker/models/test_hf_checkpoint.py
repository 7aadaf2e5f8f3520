"""Hugging Face checkpoints: what is read from the config, and everything that must be refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_checkpoints import random_tensors, tensor_shapes, tiny_config, write_checkpoint, write_config, write_sharded
from model_checkpoints import write_safetensors as write

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.config import LinearScaling, Llama3Scaling
from pdcluster_worker.models.files import load_config, open_checkpoint

INDEX = "model.safetensors.index.json"


def rewrite(path: Path, **changes: Any) -> Path:
    """Changes fields of config.json; None removes one."""
    config = json.loads((path / "config.json").read_text())
    config.update(changes)
    write_config(path, {name: value for name, value in config.items() if value is not None})
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", tiny_config())


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    for part in parts:
        assert part in str(caught.value)


def test_what_a_config_says(checkpoint: Path) -> None:
    config = load_config(checkpoint)
    assert (config.family, config.vocab_size, config.hidden_size, config.layers) == ("ernie4_5", 96, 32, 2)
    assert (config.heads, config.kv_heads, config.head_dim, config.group) == (4, 2, 8, 2)
    assert (config.rotary.theta, config.rotary.interleaved, config.eos_token_ids) == (10000.0, True, (2,))


def test_defaults_of_the_families(tmp_path: Path) -> None:
    plain = {"head_dim": None, "num_key_value_heads": None, "rope_theta": None, "eos_token_id": [4, 5]}
    ernie = load_config(write_checkpoint(tmp_path / "ernie", tiny_config(**plain)))
    llama = load_config(write_checkpoint(tmp_path / "llama", tiny_config("llama", **plain, rms_norm_eps=None)))
    assert (ernie.rotary.theta, llama.rotary.theta) == (500000.0, 10000.0)
    assert (llama.head_dim, llama.kv_heads, llama.rms_norm_eps, llama.eos_token_ids) == (8, 4, 1e-6, (4, 5))


def test_head_dim_that_only_the_tensors_know(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, tiny_config(head_dim=20))
    assert load_config(rewrite(path, head_dim=None)).head_dim == 20


def test_model_type_stands_in_for_architectures(checkpoint: Path) -> None:
    assert load_config(rewrite(checkpoint, architectures=None)).family == "ernie4_5"


def test_rope_scalings_of_llama(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, tiny_config("llama"))
    linear = rewrite(path, rope_scaling={"type": "linear", "factor": 2.0})
    assert load_config(linear).rotary.scaling == LinearScaling(2.0)
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rewrite(path, rope_scaling=None, rope_parameters={**llama3, "original_max_position_embeddings": 64})
    assert load_config(path).rotary.scaling == Llama3Scaling(8.0, 1.0, 4.0, 64)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"architectures": ["MambaForCausalLM"]}, ["architectures", "MambaForCausalLM"]),
        ({"architectures": "ErnieForCausalLM"}, ["architectures", "list of strings"]),
        ({"architectures": None, "model_type": None}, ["unknown architecture none named"]),
        ({"hidden_size": "32"}, ["hidden_size", "integer"]),
        ({"hidden_size": None}, ["hidden_size", "missing"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "at least 1"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers", "integer"]),
        ({"num_key_value_heads": 3}, ["num_key_value_heads", "divide"]),
        ({"head_dim": 7}, ["head_dim", "even"]),
        ({"rms_norm_eps": "small"}, ["rms_norm_eps", "number"]),
        ({"rms_norm_eps": -1.0}, ["rms_norm_eps", "positive"]),
        ({"tie_word_embeddings": 1}, ["tie_word_embeddings", "true or false"]),
        ({"use_bias": "no"}, ["use_bias"]),
        ({"hidden_act": "gelu"}, ["hidden_act", "gelu"]),
        ({"quantization_config": {"bits": 4}}, ["quantization_config"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor"]),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, ["rope_scaling.rope_type", "linear"]),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ["rope_scaling.rope_type", "yarn"]),
        ({"rope_parameters": [1]}, ["rope_parameters", "object"]),
        ({"rope_parameters": {"rope_theta": "big"}}, ["rope_parameters.rope_theta"]),
        ({"eos_token_id": "2"}, ["eos_token_id"]),
    ],
)
def test_bad_fields_are_named(checkpoint: Path, changes: dict[str, Any], names: list[str]) -> None:
    refused(rewrite(checkpoint, **changes), "config.json", *names)


def test_llama3_needs_ordered_factors(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}
    refused(write_checkpoint(tmp_path, tiny_config("llama", rope_scaling=scaling)), "low_freq_factor")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_config_that_is_no_json_object(checkpoint: Path, text: str) -> None:
    (checkpoint / "config.json").write_bytes(text.encode("latin-1"))
    refused(checkpoint, "config.json")


def test_paths_that_hold_no_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "no such file")
    refused(tmp_path, "config.json")
    (tmp_path / "weights.bin").write_bytes(b"x")
    refused(tmp_path / "weights.bin", "neither")
    write_config(tmp_path, tiny_config())
    refused(tmp_path, "neither model.safetensors nor")


def test_missing_extra_and_misshaped_tensors_are_named(tmp_path: Path) -> None:
    config = tiny_config()
    write_config(tmp_path, config)
    tensors = dict(random_tensors(config))
    name = "model.layers.1.mlp.up_proj.weight"

    def store(changed: dict[str, np.ndarray]) -> None:
        write(tmp_path / "model.safetensors", iter(changed.items()), {n: v.shape for n, v in changed.items()}, "F32")

    store({other: values for other, values in tensors.items() if other != name})
    refused(tmp_path, name, "missing")
    store({**tensors, "model.layers.2.mlp.up_proj.weight": tensors[name]})
    refused(tmp_path, "model.safetensors", "model.layers.2.mlp.up_proj.weight", "does not belong")
    store({**tensors, name: tensors[name][:-1]})
    refused(tmp_path, "model.safetensors", name, "[47, 32]", "[48, 32]")
    store({**tensors, name: tensors[name].T})
    refused(tmp_path, name, "[32, 48]")


def test_a_bias_that_the_config_does_not_announce_is_extra(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, tiny_config(use_bias=True))
    refused(rewrite(path, use_bias=False), "bias", "does not belong")


def test_harmless_leftovers_are_tolerated(tmp_path: Path) -> None:
    config = tiny_config()
    write_config(tmp_path, config)
    tensors = dict(random_tensors(config))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    write(tmp_path / "model.safetensors", iter(tensors.items()), {n: v.shape for n, v in tensors.items()}, "F32")
    assert open_checkpoint(tmp_path).config.tied_embeddings


def test_truncated_at_any_point(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    whole = file.read_bytes()
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(checkpoint, "model.safetensors")
    file.write_bytes(whole[:-1])
    refused(checkpoint, list(tensor_shapes(tiny_config()))[-1], "truncated")


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    ],
)
def test_headers_that_lie(checkpoint: Path, header: bytes) -> None:
    (checkpoint / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    refused(checkpoint, "model.safetensors")


def test_shards_through_their_index(tmp_path: Path) -> None:
    config = tiny_config()
    checkpoint = open_checkpoint(write_sharded(tmp_path, config, 3))
    for name, values in random_tensors(config):
        np.testing.assert_array_equal(checkpoint.tensors[name].read(0, len(values)), values)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda index: index.pop("weight_map"), ["weight_map"]),
        (lambda index: index["weight_map"].update({"model.norm.weight": 3}), ["model.norm.weight"]),
        (lambda index: index["weight_map"].update({"model.norm.weight": "../model.bin"}), ["../model.bin"]),
        (lambda index: index["weight_map"].update({"model.norm.weight": "absent.safetensors"}), ["absent.safetensors"]),
        (lambda index: index["weight_map"].update({"phantom": "model-00001-of-00002.safetensors"}), ["phantom"]),
    ],
)
def test_bad_indexes(tmp_path: Path, change: Any, names: list[str]) -> None:
    path = write_sharded(tmp_path, tiny_config(), 2)
    index = json.loads((path / INDEX).read_text())
    change(index)
    (path / INDEX).write_text(json.dumps(index))
    refused(path, *names)


def test_a_tensor_in_another_shard_than_the_index_says(tmp_path: Path) -> None:
    path = write_sharded(tmp_path, tiny_config(), 2)
    index = json.loads((path / INDEX).read_text())
    name, file = next(iter(index["weight_map"].items()))
    index["weight_map"][name] = next(other for other in index["weight_map"].values() if other != file)
    (path / INDEX).write_text(json.dumps(index))
    refused(path, name)
