"""ERNIE-4.5, dense: rotary positions pair neighbouring dimensions; one flag gives every projection a bias."""

from pdcluster_worker.models.config import Fields, ModelConfig
from pdcluster_worker.models.hf_config import read_dense

ARCHITECTURE = "Ernie4_5ForCausalLM"
MODEL_TYPE = "ernie4_5"


def read_config(fields: Fields) -> ModelConfig:
    bias = fields.boolean("use_bias", False)
    return read_dense(
        fields,
        MODEL_TYPE,
        interleaved=True,
        default_theta=500000.0,
        default_eps=1e-5,
        default_tied=True,
        attention_bias=bias,
        mlp_bias=bias,
    )
