"""Llama: rotary positions pair the halves of a head; attention and MLP have their own bias flags."""

from pdcluster_worker.models.config import Fields, ModelConfig
from pdcluster_worker.models.hf_config import read_dense

ARCHITECTURE = "LlamaForCausalLM"
MODEL_TYPE = "llama"


def read_config(fields: Fields) -> ModelConfig:
    return read_dense(
        fields,
        MODEL_TYPE,
        interleaved=False,
        default_theta=10000.0,
        default_eps=1e-6,
        default_tied=False,
        attention_bias=fields.boolean("attention_bias", False),
        mlp_bias=fields.boolean("mlp_bias", False),
        scalings=frozenset({"linear", "llama3"}),
    )
