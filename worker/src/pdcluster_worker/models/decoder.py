"""The forward pass of a dense decoder, the same for every family and every device."""

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np

from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.ops import Ops, Tokens
from pdcluster_worker.models.weights import LayerWeights, Linear, ModelWeights

T = TypeVar("T")


class Decoder(Generic[T]):
    def __init__(self, config: ModelConfig, weights: ModelWeights[T], ops: Ops[T]) -> None:
        self._config = config
        self._weights = weights
        self._ops = ops
        self._head: Linear[T] = Linear(weights.head, None)

    def forward(self, tokens: Tokens, on_written: Callable[[int], None]) -> T | None:
        """Logits [m, vocabulary] of the output rows; None where there are none. KV of every token gets written."""
        self._ops.begin(tokens, self._weights)
        logits = self._layers(tokens, on_written)
        self._ops.finish()
        return logits

    def _layers(self, tokens: Tokens, on_written: Callable[[int], None]) -> T | None:
        ops, weights = self._ops, self._weights
        eps = self._config.rms_norm_eps
        residual = ops.embed(weights, tokens.ids)
        normed = ops.rms_norm(residual, weights.layers[0].input_norm, eps)
        last = len(weights.layers) - 1
        for index, layer in enumerate(weights.layers):
            attended = ops.attend(ops.linear(normed, layer.qkv), index, on_written)
            if index == last:
                if not len(tokens.output_rows):
                    return None
                attended, residual = self._only_outputs(attended, residual, tokens)
            x, residual = self._rest(layer, attended, residual)
            following = weights.norm if index == last else weights.layers[index + 1].input_norm
            normed, residual = ops.add_rms_norm(x, residual, following, eps)
        return ops.linear(normed, self._head)

    def _rest(self, layer: LayerWeights[T], attended: T, residual: T) -> tuple[T, T]:
        """From attention to the layer's output, without its last residual addition."""
        ops = self._ops
        x = ops.linear(attended, layer.output)
        normed, residual = ops.add_rms_norm(x, residual, layer.post_norm, self._config.rms_norm_eps)
        return ops.linear(ops.swiglu(ops.linear(normed, layer.gate_up)), layer.down), residual

    def _only_outputs(self, attended: T, residual: T, tokens: Tokens) -> tuple[T, T]:
        """After the last layer's KV is written, only rows whose logits are wanted matter."""
        if np.array_equal(tokens.output_rows, np.arange(len(tokens.ids))):
            return attended, residual
        ops = self._ops
        return ops.take(attended, tokens.output_rows), ops.take(residual, tokens.output_rows)
