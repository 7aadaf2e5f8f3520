"""The GPU's attention with its fused calls played in NumPy, against the CPU's, on the same steps."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from plain_fused import PlainCalls

from pdcluster_worker.errors import ConfigError
from pdcluster_worker.models import gpu_fused
from pdcluster_worker.models.config import ModelConfig, RotaryConfig
from pdcluster_worker.models.cpu_attention import PagedAttention
from pdcluster_worker.models.cpu_workers import Workers
from pdcluster_worker.models.gpu_attention import GpuAttention
from pdcluster_worker.models.gpu_fused import FusedCalls
from pdcluster_worker.models.ops import Tokens
from pdcluster_worker.models.paddle_library import paddle
from pdcluster_worker.models.rotary import inverse_frequencies

BLOCKS, SIZE, HEADS, KV_HEADS, HEAD_DIM = 40, 4, 4, 2, 8
CONFIG = ModelConfig(
    family="llama",
    vocab_size=10,
    hidden_size=32,
    intermediate_size=32,
    layers=2,
    heads=HEADS,
    kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    rms_norm_eps=1e-5,
    max_position=64,
    rotary=RotaryConfig(100.0, False),
    tied_embeddings=True,
    attention_bias=False,
    mlp_bias=False,
    eos_token_ids=(),
)
FREQUENCIES = inverse_frequencies(CONFIG.rotary, HEAD_DIM)


def step(entries: Sequence[tuple[int, int, list[int]]]) -> Tokens:
    """Entries: (start, count, blocks)."""
    tables = np.full((len(entries), 10), -1, np.int32)
    for row, (_, _, blocks) in enumerate(entries):
        tables[row, : len(blocks)] = blocks
    starts = np.array([start for start, _, _ in entries], np.int32)
    counts = np.array([count for _, count, _ in entries], np.int32)
    positions = np.concatenate([np.arange(s, s + c, dtype=np.int32) for s, c, _ in entries])
    return Tokens(np.zeros(len(positions), np.int32), positions, starts, counts, tables, np.zeros(0, np.int32))


A, B, C, D = (
    [int(block) for block in blocks] for blocks in np.random.default_rng(3).permutation(BLOCKS).reshape(4, 10)
)
STEPS = {
    "fresh prompts": [step([(0, 5, A), (0, 1, B), (0, 9, C)])],
    "decodes": [step([(0, 5, A), (0, 4, B)]), step([(5, 1, A), (4, 1, B)]), step([(5 + 1, 1, A)])],
    "continued prompts": [step([(0, 3, A), (0, 8, B)]), step([(3, 6, A), (8, 2, B)])],
    "all at once": [
        step([(0, 6, A), (0, 7, B)]),
        step([(6, 5, A), (7, 1, B), (0, 4, C), (0, 1, D)]),
        step([(1, 3, D), (11, 1, A), (4, 9, C)]),
    ],
}


@pytest.mark.parametrize("name", STEPS)
def test_agrees_with_the_cpu(name: str) -> None:
    shape = (2, BLOCKS, KV_HEADS, SIZE, HEAD_DIM)
    on_cpu = [np.zeros(shape, np.float32) for _ in range(CONFIG.layers)]
    regions = [paddle.zeros(shape) for _ in range(CONFIG.layers)]
    cpu = PagedAttention(CONFIG, on_cpu, Workers(1))
    gpu = GpuAttention(CONFIG, regions, CONFIG.max_position, PlainCalls())  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    for tokens in STEPS[name]:
        qkv = generator.standard_normal((len(tokens.ids), (HEADS + 2 * KV_HEADS) * HEAD_DIM)).astype(np.float32)
        cpu_step, gpu_step = cpu.layout(tokens, FREQUENCIES), gpu.layout(tokens, FREQUENCIES)
        for layer in range(CONFIG.layers):
            expected = cpu.attend(qkv, layer, cpu_step, lambda layer: None)
            found = gpu.attend(paddle.to_tensor(qkv), layer, gpu_step)
            np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
            np.testing.assert_allclose(regions[layer].numpy(), on_cpu[layer], atol=1e-6)


def test_this_build_of_paddle_has_every_fused_call() -> None:
    FusedCalls()


@pytest.mark.parametrize(
    ("needed", "message"),
    [
        ({("paddle.nn.functional", "no_such_call"): ()}, "lacks paddle.nn.functional.no_such_call"),
        ({("paddle.nn.functional", "relu"): ("x", "slope")}, "relu of Paddle .* lacks slope"),
    ],
)
def test_an_unfit_build_is_named(monkeypatch: pytest.MonkeyPatch, needed: Any, message: str) -> None:
    monkeypatch.setattr(gpu_fused, "_NEEDED", needed)
    with pytest.raises(ConfigError, match=message):
        FusedCalls()
