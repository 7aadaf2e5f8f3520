"""Opening whatever a model path points at."""

from pathlib import Path

from pdcluster_worker.errors import CheckpointError
from pdcluster_worker.models.checkpoint import Checkpoint, check_tensors
from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.gguf import GGUFCheckpoint
from pdcluster_worker.models.hugging_face import HuggingFaceCheckpoint


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint directory or a .gguf file, checked for completeness. Raises CheckpointError."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    checkpoint: Checkpoint
    if path.is_dir():
        checkpoint = HuggingFaceCheckpoint(path)
    elif path.suffix == ".gguf":
        checkpoint = GGUFCheckpoint(path)
    else:
        raise CheckpointError(f"{path}: neither a checkpoint directory nor a .gguf file")
    check_tensors(checkpoint)
    return checkpoint


def load_config(path: Path) -> ModelConfig:
    """The model's config alone; reads no weights."""
    return open_checkpoint(path).config
