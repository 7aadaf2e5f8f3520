"""The runner that computes: a checkpoint's weights, paged KV, the decoder, on this executor's device.

Import it only after `paddle_environment.prepare`. The step thread is the one writer of everything here, but for
the KV blocks that peers write into by one-sided transfers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pdcluster_worker.config import ExecutorConfig
from pdcluster_worker.core.events import NO_TOKEN
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.executor.paddle_memory import KVSize, kv_size
from pdcluster_worker.executor.paddle_ops import make_ops
from pdcluster_worker.executor.runner import LayerWritten, Sampled, StepBatch
from pdcluster_worker.executor.sampler import is_plain_greedy, sample
from pdcluster_worker.kv.layout import KVLayout
from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.decoder import Decoder
from pdcluster_worker.models.files import open_checkpoint
from pdcluster_worker.models.identity import model_id
from pdcluster_worker.models.ops import FloatArray, Tokens
from pdcluster_worker.models.weights import WeightLoader


class PaddleRunner:
    """Implements `ModelRunner`."""

    def __init__(self, config: ExecutorConfig, on_progress: Callable[[float], None]) -> None:
        """Loads the model and allocates the KV blocks. Raises CheckpointError or ConfigError."""
        if config.world_size != 1:
            raise ConfigError(f"{config.world_size} ranks: a model over more than one is not supported yet")
        checkpoint = open_checkpoint(config.model_path)
        model = checkpoint.config
        self._ops = ops = make_ops(config, model)
        if ops.free_bytes() is None:  # no device to ask after loading: a pool that is too small shows at once
            kv_size(model, config.engine, ops.dtype, None)
        weights = WeightLoader(checkpoint, ops.place, ops.dtype, on_progress).load()
        ops.tune(weights)
        self._decoder: Decoder[Any] = Decoder(model, weights, ops)
        size = kv_size(model, config.engine, ops.dtype, ops.free_bytes())
        self.layout = _layout(model_id(checkpoint), model, config.engine.block_size, ops.dtype, size)
        self._regions = ops.allocate_kv(self.layout, size.max_model_length)
        self.max_model_length = size.max_model_length
        self.vocab_size = model.vocab_size
        self.device = ops.device
        self.model_bytes = weights.bytes

    def regions(self) -> list[tuple[int, int, int]]:
        return self._regions

    def execute(self, batch: StepBatch, on_layer: LayerWritten) -> Sampled:
        with np.errstate(all="ignore"):
            logits = self._decoder.forward(_tokens(batch), on_layer)
            return Sampled([], {}) if logits is None else self._sample(logits, batch)

    def logits(self, batch: StepBatch) -> FloatArray:
        """Computes the batch, samples nothing: [entries that sample, vocabulary], to compare implementations by."""
        with np.errstate(all="ignore"):
            logits = self._decoder.forward(_tokens(batch), lambda layer: None)
        return np.empty((0, self.vocab_size), np.float32) if logits is None else self._ops.host(logits)

    def _sample(self, logits: Any, batch: StepBatch) -> Sampled:
        if not all(map(is_plain_greedy, batch.sampling)):
            return sample(self._ops.host(logits), batch.sampling)
        chosen, values = self._ops.argmax(logits)
        if not np.isfinite(values).all():
            chosen = np.where(np.isfinite(values), chosen, NO_TOKEN).tolist()
        return Sampled(chosen, {})


def _tokens(batch: StepBatch) -> Tokens:
    ends = np.cumsum(batch.counts, dtype=np.int32) - 1
    return Tokens(
        ids=batch.token_ids,
        positions=batch.positions,
        starts=batch.starts,
        counts=batch.counts,
        block_tables=batch.block_tables,
        output_rows=ends[batch.sample_entries],
    )


def _layout(name: str, model: ModelConfig, block_size: int, dtype: str, size: KVSize) -> KVLayout:
    return KVLayout(
        model_id=name,
        dtype=dtype,
        layers=model.layers,
        num_blocks=size.num_blocks,
        kv_heads=model.kv_heads,
        block_size=block_size,
        head_dim=model.head_dim,
    )
