"""A checkpoint directory of Hugging Face's layout: config.json beside one or more safetensors files."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.checkpoint import StoredTensor
from pdcluster_worker.models.config import Fields, ModelConfig, read_json
from pdcluster_worker.models.registry import family_of
from pdcluster_worker.models.safetensors_file import read_tensors

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


class HuggingFaceCheckpoint:
    """Implements `Checkpoint`. Opening reads the config and the headers, no weights."""

    def __init__(self, path: Path) -> None:
        fields = read_json(path / "config.json")
        config = family_of(fields).read_config(fields)
        self.path = path
        self.tensors: Mapping[str, StoredTensor] = _read_all(path)
        self.config = config if fields.has("head_dim") else _with_stored_head_dim(config, self.tensors)


def _with_stored_head_dim(config: ModelConfig, tensors: Mapping[str, StoredTensor]) -> ModelConfig:
    """A config.json without head_dim: the default differs between versions of the format, the tensors know."""
    query = tensors.get("model.layers.0.self_attn.q_proj.weight")
    output = tensors.get("model.layers.0.self_attn.o_proj.weight")
    if query is None or output is None or len(output.shape) != 2:
        return config
    rows = query.shape[0]
    if output.shape[1] != rows or rows % (2 * config.heads):
        return config
    return dataclasses.replace(config, head_dim=rows // config.heads)


def _read_all(path: Path) -> dict[str, StoredTensor]:
    single, index = path / SINGLE_FILE, path / INDEX_FILE
    if index.exists():
        return _read_shards(path, read_json(index))
    if single.exists():
        return read_tensors(single)
    raise CheckpointError(f"{path}: has neither {SINGLE_FILE} nor {INDEX_FILE}")


def _read_shards(path: Path, index: Fields) -> dict[str, StoredTensor]:
    weight_map = index.raw("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise index.error("weight_map", "must map tensor names to files")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise index.error(f"weight_map[{name!r}]", f"must be the name of a file in {path}, not {file!r}")
    shards = {file: read_tensors(path / file) for file in sorted(set(weight_map.values()))}
    tensors: dict[str, StoredTensor] = {}
    for file, stored in shards.items():
        for name, tensor in stored.items():
            if weight_map.get(name, file) != file or name in tensors:
                raise CheckpointError(f"{tensor.label} is in a file other than the one that {index.file} names")
            tensors[name] = tensor
    for name, file in weight_map.items():
        if name not in shards[file]:
            raise CheckpointError(f"{path / file}: tensor {name} is missing, though {index.file} places it there")
    return tensors
