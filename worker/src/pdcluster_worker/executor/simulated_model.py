"""The made-up model of the simulated runner: its limits, its KV layout, its tokens. Pure."""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pdcluster_worker.config import EngineConfig, ExecutorConfig
from pdcluster_worker.core.request import TokenLogprob
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.executor.profile import ModelShape, Profile
from pdcluster_worker.executor.runner import SamplingState
from pdcluster_worker.executor.simulated_kv import spread_bits
from pdcluster_worker.kv.layout import ITEM_BYTES, KVLayout

Words = npt.NDArray[np.uint32]

HASHED_PROMPT_TOKENS = 64
WORD = 0xFFFFFFFF
ENDING_SALT = np.uint32(0x9E3779B1)
DEFAULT_KV_BYTES = 512 << 20
LOGPROB = math.log(0.5)
ALTERNATIVE_LOGPROB = math.log(0.01)


@dataclass(frozen=True, slots=True)
class SimulatedModel:
    """Tokens are a function of (seed, output index, prompt): nothing of the worker or of the batch enters."""

    vocab_size: int
    max_model_length: int
    eos_token: int | None
    eos_probability: float

    def tokens(self, states: Sequence[SamplingState]) -> list[int]:
        """The next token of each entry."""
        numbers = _numbers(states)
        tokens = (numbers % self.vocab_size).astype(np.int64)
        if self.eos_token is not None:
            tokens[tokens == self.eos_token] = (self.eos_token + 1) % self.vocab_size
            if self.eos_probability:
                tokens[self._ending(states, numbers)] = self.eos_token
        drawn: list[int] = tokens.tolist()
        return drawn

    def logprob(self, token: int, alternatives: int) -> TokenLogprob:
        """The sampled token first, then its neighbours in the vocabulary."""
        others = tuple((token + step) % self.vocab_size for step in range(1, alternatives))
        top = ((token,) if alternatives else ()) + others
        return TokenLogprob(LOGPROB, top, ((LOGPROB,) if alternatives else ()) + (ALTERNATIVE_LOGPROB,) * len(others))

    def _ending(self, states: Sequence[SamplingState], numbers: Words) -> npt.NDArray[np.bool_]:
        """[n]: whether each entry may end, and chance says so."""
        chance = spread_bits(numbers ^ ENDING_SALT) / 2**32
        may_end = [not state.params.ignore_eos and state.output_index >= state.params.min_tokens for state in states]
        ends: npt.NDArray[np.bool_] = np.array(may_end, dtype=bool) & (chance < self.eos_probability)
        return ends


def _numbers(states: Sequence[SamplingState]) -> Words:
    """[n]: 32 bits each that depend on the seed, the output index and the prompt (its length and its last tokens).

    What does not change with the index is worked out once per request, as its mark.
    """
    _mark([state for state in states if state.mark < 0])
    marks = np.array([state.mark for state in states], dtype=np.uint32)
    return spread_bits(marks ^ np.array([state.length - state.prompt_length for state in states], dtype=np.uint32))


def _mark(states: Sequence[SamplingState]) -> None:
    if not states:
        return
    words = np.array([zlib.crc32(_hashed_tokens(state), state.prompt_length) for state in states], dtype=np.uint32)
    for shift in (0, 32):
        seeds = np.array([state.params.seed >> shift & WORD for state in states], dtype=np.uint32)
        words = spread_bits(words ^ seeds)
    for state, word in zip(states, words.tolist(), strict=True):
        state.mark = word


def _hashed_tokens(state: SamplingState) -> bytes:
    return state.tokens[max(0, state.prompt_length - HASHED_PROMPT_TOKENS) : state.prompt_length].tobytes()


def resolve_model(engine: EngineConfig, profile: Profile, shape: ModelShape) -> SimulatedModel:
    eos = shape.eos_token_id[0] if isinstance(shape.eos_token_id, list) else shape.eos_token_id
    limit = profile.max_model_length or shape.max_position_embeddings
    if engine.max_model_length is not None and engine.max_model_length > limit:
        raise ConfigError(f"--max-model-length {engine.max_model_length} exceeds the model's {limit}")
    return SimulatedModel(
        vocab_size=profile.vocab_size or shape.vocab_size,
        max_model_length=engine.max_model_length or limit,
        eos_token=profile.eos_token_id if profile.eos_token_id is not None else eos,
        eos_probability=profile.eos_probability,
    )


def resolve_layout(config: ExecutorConfig, profile: Profile, shape: ModelShape, max_length: int) -> KVLayout:
    """Raises ConfigError when one request of the longest length would not fit."""
    engine = config.engine
    dtype = profile.dtype if engine.dtype == "auto" else engine.dtype
    if dtype not in ITEM_BYTES:
        raise ConfigError(f"dtype {dtype} is none of {', '.join(ITEM_BYTES)}")
    heads = profile.kv_heads or shape.num_key_value_heads or shape.num_attention_heads
    layout = KVLayout(
        model_id=f"simulated/{config.model_name}",
        dtype=dtype,
        layers=profile.layers or shape.num_hidden_layers,
        num_blocks=0,
        kv_heads=max(1, heads // config.world_size),
        block_size=engine.block_size,
        head_dim=profile.head_dim or shape.head_dim or max(1, shape.hidden_size // shape.num_attention_heads),
    )
    return _with_blocks(layout, engine, max_length)


def _with_blocks(layout: KVLayout, engine: EngineConfig, max_length: int) -> KVLayout:
    longest = -(-max_length // layout.block_size)
    useful = engine.max_running_requests * longest
    blocks = engine.kv_blocks or min(useful, DEFAULT_KV_BYTES // layout.bytes_per_block)
    if blocks < longest:
        raise ConfigError(f"kv blocks {blocks}: one request of {max_length} tokens needs {longest}")
    return KVLayout(
        layout.model_id, layout.dtype, layout.layers, blocks, layout.kv_heads, layout.block_size, layout.head_dim
    )
