"""The fields of a Hugging Face config.json that the dense families share."""

from pdcluster_worker.models.config import (
    Fields,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    RotaryConfig,
    RotaryScaling,
)


def read_dense(
    fields: Fields,
    family: str,
    *,
    interleaved: bool,
    default_theta: float,
    default_eps: float,
    default_tied: bool,
    attention_bias: bool,
    mlp_bias: bool,
    scalings: frozenset[str] = frozenset(),
) -> ModelConfig:
    """`scalings`: the rope types, other than default, that the family's reference uses and this code computes."""
    _refuse_unsupported(fields)
    heads = fields.integer("num_attention_heads")
    hidden = fields.integer("hidden_size")
    kv_heads = fields.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        raise fields.error("num_key_value_heads", f"({kv_heads}) must divide num_attention_heads ({heads})")
    max_position = fields.integer("max_position_embeddings")
    return ModelConfig(
        family=family,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        layers=fields.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_head_dim(fields, hidden, heads),
        rms_norm_eps=fields.number("rms_norm_eps", default_eps),
        max_position=max_position,
        rotary=_rotary(fields, interleaved, default_theta, max_position, scalings),
        tied_embeddings=fields.boolean("tie_word_embeddings", default_tied),
        attention_bias=attention_bias,
        mlp_bias=mlp_bias,
        eos_token_ids=fields.integers("eos_token_id"),
    )


def _head_dim(fields: Fields, hidden: int, heads: int) -> int:
    if not fields.has("head_dim") and hidden % heads:
        raise fields.error("hidden_size", f"({hidden}) is not a multiple of num_attention_heads ({heads})")
    head_dim = fields.integer("head_dim", hidden // heads)
    if head_dim % 2:
        raise fields.error("head_dim", f"must be even for rotary positions, not {head_dim}")
    return head_dim


def _refuse_unsupported(fields: Fields) -> None:
    if (activation := fields.string("hidden_act", "silu")) != "silu":
        raise fields.error("hidden_act", f"{activation!r} is not supported; only silu is")
    if fields.has("quantization_config"):
        raise fields.error("quantization_config", "is not supported: use a checkpoint in fp32, fp16 or bf16")
    for owner in (fields, fields.object("rope_parameters")):
        if owner is not None and owner.number("partial_rotary_factor", 1.0) != 1.0:
            raise owner.error("partial_rotary_factor", "other than 1 is not supported")


def _rotary(
    fields: Fields, interleaved: bool, default_theta: float, max_position: int, scalings: frozenset[str]
) -> RotaryConfig:
    parameters = fields.object("rope_parameters")
    theta = fields.number("rope_theta", default_theta)
    if parameters is not None:
        theta = parameters.number("rope_theta", theta)
    owner = parameters if parameters is not None else fields.object("rope_scaling")
    scaling = None if owner is None else _scaling(owner, max_position, scalings)
    return RotaryConfig(theta=theta, interleaved=interleaved, scaling=scaling)


def _scaling(owner: Fields, max_position: int, scalings: frozenset[str]) -> RotaryScaling | None:
    kind = owner.string("rope_type", owner.string("type", "default"))
    if kind == "default":
        return None
    if kind not in scalings:
        raise owner.error("rope_type", f"{kind!r} is not supported by this model family")
    factor = owner.number("factor")
    if kind == "linear":
        return LinearScaling(factor)
    low, high = owner.number("low_freq_factor"), owner.number("high_freq_factor")
    if low >= high:
        raise owner.error("low_freq_factor", f"({low}) must be below high_freq_factor ({high})")
    original = owner.integer("original_max_position_embeddings", max_position)
    return Llama3Scaling(factor, low, high, original)
