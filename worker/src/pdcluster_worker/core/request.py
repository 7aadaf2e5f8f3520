"""The request as it travels: written once by the router, forwarded unchanged in Commit."""

import msgspec

from pdcluster_worker.core.ids import RequestId, RequestKey


class SamplingParams(msgspec.Struct, frozen=True, gc=False):
    """How to choose output tokens. Ranges are checked at the router and again at the worker."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0
    logit_bias_ids: tuple[int, ...] = ()
    logit_bias_values: tuple[float, ...] = ()
    logprobs: int = -1
    max_tokens: int = 16
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()


class Request(msgspec.Struct, frozen=True):
    """Everything needed to compute a request from nothing, at any worker, at any time of its life.

    `tokens` is little-endian uint32: the prompt, then the output so far. `deadline` is on the clock of
    the process that holds the object (monotonic seconds); on the wire it travels as what remains.
    """

    request_id: RequestId
    epoch: int
    tokens: bytes
    prompt_length: int
    sampling: SamplingParams
    deadline: float
    cache_salt: str = ""
    trace_parent: str = ""
    alone: bool = False

    @property
    def key(self) -> RequestKey:
        return RequestKey(self.request_id, self.epoch)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens) // 4


class TokenLogprob(msgspec.Struct, frozen=True, gc=False):
    """Log-probability of one sampled token and of the most likely alternatives, most likely first."""

    logprob: float
    top_tokens: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()


class OutputToken(msgspec.Struct, frozen=True):
    """One output token; index 0 is the first token after the prompt."""

    index: int
    token: int
    logprob: TokenLogprob | None = None
