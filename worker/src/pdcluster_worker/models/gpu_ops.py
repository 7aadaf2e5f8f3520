"""The decoder's operations on a GPU, in bfloat16 or float16, with Paddle's fused kernels (gpu_fused.py)."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from pdcluster_worker.errors import ConfigError
from pdcluster_worker.kv.layout import KVLayout
from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.gpu_attention import GpuAttention, StepLayout
from pdcluster_worker.models.gpu_fused import FusedCalls
from pdcluster_worker.models.ops import FloatArray, IntArray, Tokens
from pdcluster_worker.models.paddle_library import paddle
from pdcluster_worker.models.weights import Linear, ModelWeights

Tensor = Any


class GpuOps:
    """Implements `Ops`. Kernels run behind the host: written layers are reported once their events have passed."""

    device = "gpu"

    def __init__(self, config: ModelConfig, dtype: str, index: int, memory_utilization: float, batch: int) -> None:
        """`index`: of the GPU in this pod; `batch`: tokens of the largest step. Raises ConfigError."""
        if device_count() <= index:
            raise ConfigError(f"GPU {index} is not there: Paddle {paddle.__version__} finds {device_count()}")
        paddle.device.set_device(f"gpu:{index}")
        paddle.set_grad_enabled(False)
        self.dtype = dtype
        self._config = config
        self._index = index
        self._utilization = memory_utilization
        self._batch = batch
        self._fused = FusedCalls()
        self._attention: GpuAttention | None = None
        self._step: StepLayout | None = None
        self._written: deque[tuple[Any, int, Callable[[int], None]]] = deque()

    def place(self, array: FloatArray) -> Tensor:
        return paddle.to_tensor(array, place=paddle.CUDAPlace(self._index)).astype(self.dtype)

    def tune(self, weights: ModelWeights[Tensor]) -> None:
        paddle.device.cuda.empty_cache()

    def free_bytes(self) -> int | None:
        total: int = paddle.device.cuda.get_device_properties(self._index).total_memory
        used: int = paddle.device.cuda.memory_reserved(self._index)
        return max(0, int(total * self._utilization) - used - activation_bytes(self._config, self._batch))

    def allocate_kv(self, layout: KVLayout, max_model_length: int) -> list[tuple[int, int, int]]:
        shape = [2, layout.num_blocks, layout.kv_heads, layout.block_size, layout.head_dim]
        regions = [paddle.zeros(shape, self.dtype) for _ in range(layout.layers)]
        if regions[0][1].data_ptr() != regions[0].data_ptr() + layout.region_bytes // 2:
            raise ConfigError(f"Paddle {paddle.__version__} copies slices: set FLAGS_use_stride_kernel=1")
        self._attention = GpuAttention(self._config, regions, max_model_length, self._fused)
        paddle.device.synchronize()
        return [(region.data_ptr(), layout.region_bytes, self._index) for region in regions]

    def begin(self, tokens: Tokens, weights: ModelWeights[Tensor]) -> None:
        assert self._attention is not None
        self._step = self._attention.layout(tokens, weights.frequencies)

    def embed(self, weights: ModelWeights[Tensor], ids: IntArray) -> Tensor:
        index = paddle.to_tensor(ids, "int64")
        if weights.embedding is not None:
            return paddle.index_select(weights.embedding, index)
        return paddle.index_select(weights.head, index, axis=1).transpose([1, 0]).contiguous()

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self._fused.rms_norm(x, weight, eps)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        return self._fused.add_rms_norm(x, residual, weight, eps)

    def linear(self, x: Tensor, layer: Linear[Tensor]) -> Tensor:
        product = paddle.matmul(x, layer.weight)
        return product if layer.bias is None else product + layer.bias

    def attend(self, qkv: Tensor, layer: int, on_written: Callable[[int], None]) -> Tensor:
        assert self._attention is not None
        assert self._step is not None
        out = self._attention.attend(qkv, layer, self._step)
        event = paddle.device.cuda.Event()
        event.record(paddle.device.cuda.current_stream())
        self._written.append((event, layer, on_written))
        while self._written and self._written[0][0].query():
            self._report_written()
        return out

    def finish(self) -> None:
        while self._written:
            self._written[0][0].synchronize()
            self._report_written()

    def _report_written(self) -> None:
        _, layer, on_written = self._written.popleft()
        on_written(layer)

    def swiglu(self, gate_up: Tensor) -> Tensor:
        return self._fused.swiglu(gate_up)

    def take(self, x: Tensor, rows: IntArray) -> Tensor:
        return paddle.index_select(x, paddle.to_tensor(rows, "int64"))

    def host(self, x: Tensor) -> FloatArray:
        return np.asarray(x.astype("float32").numpy())

    def argmax(self, x: Tensor) -> tuple[list[int], FloatArray]:
        wide = x.astype("float32")
        chosen = paddle.argmax(wide, axis=-1)
        values = paddle.take_along_axis(wide, chosen[:, None], axis=-1)
        return chosen.numpy().tolist(), np.asarray(values.numpy())


def device_count() -> int:
    return int(paddle.device.cuda.device_count())


def activation_bytes(config: ModelConfig, tokens: int) -> int:
    """A step's intermediate tensors at 2 bytes, each with a copy, and logits of 256 rows at 2 and at 4 bytes."""
    widths = 4 * config.hidden_size + 3 * (config.q_size + 2 * config.kv_size) + 3 * config.intermediate_size
    return 2 * 2 * tokens * widths + 256 * config.vocab_size * (2 + 4 + 4)
