"""The H100's time for each step of ERNIE-4.5-0.3B, from its roofline. The arithmetic is told in docs/seed-benchmark.md.

`python tests/bench/roofline.py` prints the profile that tests/bench/profiles/h100-ernie45-0.3b.json holds.
"""

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """Peak rates, the share of each that good kernels reach, and seconds per kernel launch."""

    flops: float
    bytes_per_second: float
    matmul_share: float
    attention_share: float
    memory_share: float
    graph_launch: float
    host_launch: float


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    kernels_per_layer: int
    kernels_around: int

    @property
    def layer_parameters(self) -> int:
        """Query and output projections, key and value projections, gate, up and down."""
        attention = 2 * self.hidden * self.heads * self.head_dim + 2 * self.hidden * self.kv_heads * self.head_dim
        return attention + 3 * self.hidden * self.intermediate

    @property
    def parameters(self) -> int:
        """With one embedding table for input and output."""
        return self.layers * self.layer_parameters + self.vocabulary * self.hidden

    @property
    def kv_bytes_per_token(self) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * BF16

    @property
    def attention_flops(self) -> int:
        """For one token and one token of its context, over all layers."""
        return 4 * self.heads * self.head_dim * self.layers

    @property
    def kernels(self) -> int:
        return self.kernels_per_layer * self.layers + self.kernels_around


BF16 = 2
SAMPLER_PASSES = 3
LOGIT_BYTES = 4
FULL_BATCH = 256
H100 = Device(
    flops=989.4e12,
    bytes_per_second=3.35e12,
    matmul_share=0.6,
    attention_share=0.4,
    memory_share=0.8,
    graph_launch=2e-6,
    host_launch=5e-6,
)
ERNIE_03B = Shape(
    layers=18,
    hidden=1024,
    heads=16,
    kv_heads=2,
    head_dim=128,
    intermediate=3072,
    vocabulary=103424,
    kernels_per_layer=10,
    kernels_around=10,
)


def decode_timing(device: Device, shape: Shape) -> dict[str, float]:
    """base: weights read once, and launches. per_request: what a full batch computes longer than that, and sampling."""
    bandwidth = device.bytes_per_second * device.memory_share
    weights = shape.parameters * BF16 / bandwidth
    compute = FULL_BATCH * 2 * shape.parameters / (device.flops * device.matmul_share)
    sampling = SAMPLER_PASSES * shape.vocabulary * LOGIT_BYTES / bandwidth
    return {
        "base": weights + shape.kernels * device.graph_launch,
        "per_request": max(0.0, compute - weights) / FULL_BATCH + sampling,
        "per_context_token": shape.kv_bytes_per_token / bandwidth,
    }


def prefill_timing(device: Device, shape: Shape) -> dict[str, float]:
    """base: launches by the host, since chunks differ in shape. The output head runs for the last token alone."""
    return {
        "base": shape.kernels * device.host_launch,
        "per_token": 2 * shape.layers * shape.layer_parameters / (device.flops * device.matmul_share),
        "per_token_context": shape.attention_flops / (device.flops * device.attention_share),
    }


def profile(device: Device, shape: Shape) -> dict[str, object]:
    """As the simulated runner reads it."""
    return {
        "prefill": {name: _rounded(value) for name, value in prefill_timing(device, shape).items()},
        "decode": {name: _rounded(value) for name, value in decode_timing(device, shape).items()},
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "dtype": "bfloat16",
        "vocab_size": shape.vocabulary,
        "max_model_length": 8192,
        "verification": "off",
    }


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


if __name__ == "__main__":
    print(json.dumps(profile(H100, ERNIE_03B), indent=2))
