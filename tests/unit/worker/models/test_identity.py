import shutil
from pathlib import Path

from model_checkpoints import tiny_config, write_checkpoint, write_sharded

from pdcluster_worker.models.files import open_checkpoint
from pdcluster_worker.models.identity import model_id


def name(path: Path) -> str:
    return model_id(open_checkpoint(path))


def test_the_same_weights_have_the_same_id_wherever_they_are(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path / "a", tiny_config())
    shutil.copytree(first, tmp_path / "b")
    sharded = write_sharded(tmp_path / "c", tiny_config(), 3)
    assert name(first) == name(tmp_path / "b") == name(sharded)


def test_other_weights_or_another_config_have_another(tmp_path: Path) -> None:
    first = name(write_checkpoint(tmp_path / "a", tiny_config()))
    others = {
        name(write_checkpoint(tmp_path / "b", tiny_config(), seed=1)),
        name(write_checkpoint(tmp_path / "c", tiny_config(rope_theta=9.0))),
        name(write_checkpoint(tmp_path / "d", tiny_config(), dtype="BF16")),
    }
    assert len(others | {first}) == 4


def test_one_changed_byte_is_seen(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, tiny_config())
    before = name(path)
    file = path / "model.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-5000] ^= 1
    file.write_bytes(raw)
    assert name(path) != before


def test_large_tensors_are_sampled_over_their_whole_length(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, tiny_config(vocab_size=20_000))
    before = name(path)
    file = path / "model.safetensors"
    raw = bytearray(file.read_bytes())
    half = len(raw) // 2
    raw[half : half + 100_000] = bytes(100_000)
    file.write_bytes(raw)
    assert name(path) != before
