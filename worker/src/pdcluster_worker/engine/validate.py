"""A request against the model's limits. Pure; raises ValidationError naming the field and the limit."""

from dataclasses import dataclass

import numpy as np

from pdcluster_worker.core.request import Request, SamplingParams
from pdcluster_worker.errors import ValidationError

MAX_TEMPERATURE = 2.0
MAX_PENALTY = 2.0
MAX_REPETITION_PENALTY = 10.0
MAX_BIAS = 100.0
MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Lengths in tokens."""

    max_model_length: int
    vocab_size: int


def check_request(request: Request, limits: ModelLimits) -> None:
    _check_lengths(request, limits)
    tokens = np.frombuffer(request.tokens, dtype="<u4")
    largest = int(tokens.max())
    if largest >= limits.vocab_size:
        place = int(tokens.argmax())
        raise ValidationError(
            f"prompt: token id {largest} at position {place} is out of range; the vocabulary has {limits.vocab_size}",
            "prompt",
        )
    _check_sampling(request.sampling, limits.vocab_size)


def _check_lengths(request: Request, limits: ModelLimits) -> None:
    total, prompt = request.num_tokens, request.prompt_length
    if total == 0 or prompt == 0:
        raise ValidationError("prompt: is empty", "prompt")
    if prompt > total:
        raise ValidationError(f"prompt_length: {prompt} of {total} tokens", "prompt")
    if prompt >= limits.max_model_length:
        raise ValidationError(
            f"prompt: {prompt} tokens; the model's limit is {limits.max_model_length} with the output", "prompt"
        )
    most = limits.max_model_length - prompt
    _within(request.sampling.max_tokens, 1, most, "max_tokens", f" after a prompt of {prompt} tokens")
    if total - prompt > request.sampling.max_tokens:
        raise ValidationError(
            f"max_tokens: {request.sampling.max_tokens}, but {total - prompt} tokens are out already", "max_tokens"
        )


def _check_sampling(sampling: SamplingParams, vocab_size: int) -> None:
    _within(sampling.temperature, 0.0, MAX_TEMPERATURE, "temperature")
    if not 0.0 < sampling.top_p <= 1.0:
        raise ValidationError(f"top_p: {sampling.top_p} is not above 0 and at most 1", "top_p")
    _within(sampling.top_k, 0, 1 << 31, "top_k")
    _within(sampling.min_p, 0.0, 1.0, "min_p")
    _within(sampling.presence_penalty, -MAX_PENALTY, MAX_PENALTY, "presence_penalty")
    _within(sampling.frequency_penalty, -MAX_PENALTY, MAX_PENALTY, "frequency_penalty")
    if not 0.0 < sampling.repetition_penalty <= MAX_REPETITION_PENALTY:
        limit = f"is not above 0 and at most {MAX_REPETITION_PENALTY}"
        raise ValidationError(f"repetition_penalty: {sampling.repetition_penalty} {limit}", "repetition_penalty")
    _within(sampling.logprobs, -1, MAX_LOGPROBS, "logprobs")
    _within(sampling.min_tokens, 0, sampling.max_tokens, "min_tokens")
    for token in sampling.stop_token_ids:
        _within(token, 0, vocab_size - 1, "stop_token_ids")
    if len(sampling.logit_bias_ids) != len(sampling.logit_bias_values):
        raise ValidationError("logit_bias: as many ids as values are needed", "logit_bias")
    for token, bias in zip(sampling.logit_bias_ids, sampling.logit_bias_values, strict=True):
        _within(token, 0, vocab_size - 1, "logit_bias")
        _within(bias, -MAX_BIAS, MAX_BIAS, "logit_bias")


def _within(value: float, low: float, high: float, field: str, why: str = "") -> None:
    """Written so that NaN is out of every range."""
    if not low <= value <= high:
        raise ValidationError(f"{field}: {value} is not between {low} and {high}{why}", field)
