"""The two model families written down once more, as plainly as possible: whole sequence, no cache, one head at a time.

Shares nothing with the product. Weights come as a dict of float32 arrays under their Hugging Face names.
"""

import math
from typing import Any

import numpy as np

Array = np.ndarray


def logits(config: dict[str, Any], weights: dict[str, Array], tokens: list[int]) -> Array:
    """[len(tokens), vocab_size]"""
    eps = config["rms_norm_eps"]
    x = weights["model.embed_tokens.weight"][np.array(tokens)]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        normed = _rms_norm(x, weights[prefix + "input_layernorm.weight"], eps)
        x = x + _attention(config, weights, prefix + "self_attn.", normed)
        normed = _rms_norm(x, weights[prefix + "post_attention_layernorm.weight"], eps)
        gate = _linear(weights, prefix + "mlp.gate_proj", normed)
        up = _linear(weights, prefix + "mlp.up_proj", normed)
        x = x + _linear(weights, prefix + "mlp.down_proj", gate / (1 + np.exp(-gate)) * up)
    x = _rms_norm(x, weights["model.norm.weight"], eps)
    tied = config.get("tie_word_embeddings", False)
    return x @ weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T


def greedy(config: dict[str, Any], weights: dict[str, Array], prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(np.argmax(logits(config, weights, tokens)[-1])))
    return tokens[len(prompt) :]


def _rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def _linear(weights: dict[str, Array], name: str, x: Array) -> Array:
    y = x @ weights[name + ".weight"].T
    return y + weights[name + ".bias"] if name + ".bias" in weights else y


def _attention(config: dict[str, Any], weights: dict[str, Array], prefix: str, x: Array) -> Array:
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    q, k, v = (_linear(weights, f"{prefix}{name}_proj", x) for name in "qkv")
    future = np.triu(np.full((len(x), len(x)), -np.inf), 1)
    outputs = []
    for head in range(heads):
        kv_head = head // (heads // kv_heads)
        query = _rotated(config, q[:, head * head_dim : (head + 1) * head_dim])
        columns = slice(kv_head * head_dim, (kv_head + 1) * head_dim)
        scores = query @ _rotated(config, k[:, columns]).T / math.sqrt(head_dim) + future
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        outputs.append(shares / shares.sum(axis=-1, keepdims=True) @ v[:, columns])
    return _linear(weights, f"{prefix}o_proj", np.concatenate(outputs, axis=-1))


def _frequencies(config: dict[str, Any], head_dim: int) -> Array:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = rope.get("rope_type", rope.get("type", "default"))
    result = []
    for index in range(head_dim // 2):
        frequency = theta ** (-2 * index / head_dim)
        if kind == "linear":
            frequency /= rope["factor"]
        elif kind == "llama3":
            frequency = _llama3(rope, frequency)
        result.append(frequency)
    return np.array(result)


def _llama3(rope: dict[str, Any], frequency: float) -> float:
    wavelength = 2 * math.pi / frequency
    original, low, high = rope["original_max_position_embeddings"], rope["low_freq_factor"], rope["high_freq_factor"]
    if wavelength < original / high:
        return frequency
    if wavelength > original / low:
        return frequency / rope["factor"]
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / rope["factor"] + smooth * frequency


def _rotated(config: dict[str, Any], x: Array) -> Array:
    """ERNIE turns the pairs (2i, 2i + 1), Llama the pairs (i, i + head_dim / 2)."""
    half = x.shape[1] // 2
    angles = np.arange(len(x))[:, None] * _frequencies(config, x.shape[1])
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    interleaved = config["architectures"] == ["Ernie4_5ForCausalLM"]
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
    out = np.empty_like(x)
    out[:, first] = x[:, first] * cos - x[:, second] * sin
    out[:, second] = x[:, second] * cos + x[:, first] * sin
    return out
