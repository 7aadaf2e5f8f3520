"""The decoder's operations on a CPU, in float32: Paddle has no bfloat16 products there.

Arrays are NumPy's; large products go to whichever library is faster here (cpu_matmul.py).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pdcluster_worker.kv.layout import KVLayout
from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.cpu_attention import PagedAttention, StepLayout
from pdcluster_worker.models.cpu_matmul import Multiply, measure, numpy_multiply
from pdcluster_worker.models.cpu_workers import Scratch, Workers
from pdcluster_worker.models.ops import IntArray, Tokens
from pdcluster_worker.models.weights import Linear, ModelWeights

FloatArray = npt.NDArray[np.float32]


class CpuOps:
    """Implements `Ops[FloatArray]`."""

    dtype = "float32"
    device = "cpu"

    def __init__(self, config: ModelConfig, workers: Workers) -> None:
        self._config = config
        self._workers = workers
        self._scratch = Scratch()
        self._attention: PagedAttention | None = None
        self._step: StepLayout | None = None
        self._multiply: Multiply = numpy_multiply

    def place(self, array: FloatArray) -> FloatArray:
        return array

    def tune(self, weights: ModelWeights[FloatArray]) -> None:
        linears = [way for layer in weights.layers for way in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        self._multiply = measure([*(linear.weight for linear in linears), weights.head])

    def free_bytes(self) -> int | None:
        return None

    def allocate_kv(self, layout: KVLayout, max_model_length: int) -> list[tuple[int, int, int]]:
        shape = (2, layout.num_blocks, layout.kv_heads, layout.block_size, layout.head_dim)
        regions = [np.zeros(shape, np.float32) for _ in range(layout.layers)]
        self._attention = PagedAttention(self._config, regions, self._workers)
        return [(region.ctypes.data, region.nbytes, 0) for region in regions]

    def begin(self, tokens: Tokens, weights: ModelWeights[FloatArray]) -> None:
        assert self._attention is not None
        self._step = self._attention.layout(tokens, weights.frequencies)

    def embed(self, weights: ModelWeights[FloatArray], ids: IntArray) -> FloatArray:
        if weights.embedding is not None:
            return weights.embedding[ids]
        return np.ascontiguousarray(np.take(weights.head, ids, axis=1).T)

    def rms_norm(self, x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
        out = self._scratch.array("normed", x.shape)

        def tile(start: int, stop: int, scratch: Scratch) -> None:
            _normalise(x[start:stop], weight, eps, out[start:stop])

        self._workers.rows(x.shape[0], x.shape[1], tile)
        return out

    def add_rms_norm(
        self, x: FloatArray, residual: FloatArray, weight: FloatArray, eps: float
    ) -> tuple[FloatArray, FloatArray]:
        out = self._scratch.array("normed", x.shape)

        def tile(start: int, stop: int, scratch: Scratch) -> None:
            rows = residual[start:stop]
            rows += x[start:stop]
            _normalise(rows, weight, eps, out[start:stop])

        self._workers.rows(x.shape[0], x.shape[1], tile)
        return out, residual

    def linear(self, x: FloatArray, layer: Linear[FloatArray]) -> FloatArray:
        out = self._scratch.array("product", (x.shape[0], layer.weight.shape[1]))
        self._multiply(x, layer.weight, out)
        if layer.bias is not None:
            out += layer.bias
        return out

    def attend(self, qkv: FloatArray, layer: int, on_written: Callable[[int], None]) -> FloatArray:
        assert self._attention is not None
        assert self._step is not None
        return self._attention.attend(qkv, layer, self._step, on_written)

    def finish(self) -> None:
        """Nothing runs behind the step thread here."""

    def swiglu(self, gate_up: FloatArray) -> FloatArray:
        width = gate_up.shape[1] // 2
        out = self._scratch.array("activated", (gate_up.shape[0], width))

        def tile(start: int, stop: int, scratch: Scratch) -> None:
            gate, up, target = gate_up[start:stop, :width], gate_up[start:stop, width:], out[start:stop]
            np.negative(gate, out=target)
            np.exp(target, out=target)
            target += 1
            np.divide(gate, target, out=target)
            target *= up

        self._workers.rows(gate_up.shape[0], width, tile)
        return out

    def take(self, x: FloatArray, rows: IntArray) -> FloatArray:
        return x[rows]

    def host(self, x: FloatArray) -> FloatArray:
        return x

    def argmax(self, x: FloatArray) -> tuple[list[int], FloatArray]:
        chosen = np.argmax(x, axis=1)
        return chosen.tolist(), x[np.arange(len(x)), chosen]


def _normalise(x: FloatArray, weight: FloatArray, eps: float, out: FloatArray) -> None:
    squares = np.einsum("th,th->t", x, x)
    scale = 1 / np.sqrt(squares / np.float32(x.shape[1]) + np.float32(eps))
    np.multiply(x, scale[:, None], out=out)
    out *= weight
