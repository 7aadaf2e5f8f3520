"""A request and its output tokens, to and from the wire. On the wire a deadline is what remains of it."""

import struct
from collections.abc import Sequence

from pdcluster_proto.v1 import request_pb2 as pb
from pdcluster_worker.core.request import OutputToken, Request, SamplingParams, TokenLogprob
from pdcluster_worker.splitwise import checks, limits

MAX_MILLISECONDS = 7 * 24 * 3600 * 1000
"""Of a deadline that a peer gives: a week."""


def pack_words(values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def unpack_words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)


def remaining_ms(deadline: float, now: float) -> int:
    return max(0, round((deadline - now) * 1000))


def deadline_from(milliseconds: int, now: float) -> float:
    return now + min(milliseconds, MAX_MILLISECONDS) / 1000


def write_request(request: Request, message: pb.Request, now: float) -> None:
    """Fills `message`, which must be empty."""
    message.request_id = request.request_id
    message.epoch = request.epoch
    message.tokens = request.tokens
    message.prompt_length = request.prompt_length
    _write_sampling(request.sampling, message.sampling)
    message.deadline_ms = remaining_ms(request.deadline, now)
    message.cache_salt = request.cache_salt
    message.trace_parent = request.trace_parent
    message.alone = request.alone


def read_request(message: pb.Request, now: float) -> Request:
    """Form and limits of the wire only; the model's limits are checked by the prepare pool."""
    key = checks.key(message.request_id, message.epoch)
    return Request(
        request_id=key.request_id,
        epoch=key.epoch,
        tokens=checks.packed_words(message.tokens, limits.MAX_REQUEST_TOKENS, "tokens"),
        prompt_length=message.prompt_length,
        sampling=_read_sampling(message.sampling),
        deadline=deadline_from(message.deadline_ms, now),
        cache_salt=checks.bounded(message.cache_salt, limits.MAX_SALT, "cache_salt"),
        trace_parent=checks.bounded(message.trace_parent, limits.MAX_NAME, "trace_parent"),
        alone=message.alone,
    )


def write_logprobs(entry: int, logprob: TokenLogprob, message: pb.TokenLogprobs) -> None:
    message.entry = entry
    message.logprob = logprob.logprob
    message.top_tokens.extend(logprob.top_tokens)
    message.top_logprobs.extend(logprob.top_logprobs)


def read_logprobs(message: pb.TokenLogprobs) -> TokenLogprob:
    checks.bounded(message.top_tokens, limits.MAX_TOP_LOGPROBS, "top_tokens")
    checks.same_length("logprobs", message.top_tokens, message.top_logprobs)
    return TokenLogprob(message.logprob, tuple(message.top_tokens), tuple(message.top_logprobs))


def write_output(output: OutputToken, message: pb.OutputToken) -> None:
    message.index = output.index
    message.token = output.token
    if output.logprob is not None:
        write_logprobs(0, output.logprob, message.logprobs)


def read_outputs(items: Sequence[pb.OutputToken]) -> tuple[OutputToken, ...]:
    checks.bounded(items, limits.MAX_OUTPUTS, "outputs")
    return tuple(
        OutputToken(item.index, item.token, read_logprobs(item.logprobs) if item.HasField("logprobs") else None)
        for item in items
    )


def _write_sampling(sampling: SamplingParams, message: pb.SamplingParams) -> None:
    message.temperature = sampling.temperature
    message.top_p = sampling.top_p
    message.top_k = sampling.top_k
    message.min_p = sampling.min_p
    message.presence_penalty = sampling.presence_penalty
    message.frequency_penalty = sampling.frequency_penalty
    message.repetition_penalty = sampling.repetition_penalty
    message.seed = sampling.seed
    if sampling.logit_bias_ids:
        message.logit_bias_ids = pack_words(sampling.logit_bias_ids)
        message.logit_bias_values.extend(sampling.logit_bias_values)
    message.logprobs = sampling.logprobs
    message.max_tokens = sampling.max_tokens
    message.min_tokens = sampling.min_tokens
    message.ignore_eos = sampling.ignore_eos
    if sampling.stop_token_ids:
        message.stop_token_ids.extend(sampling.stop_token_ids)


def _read_bias(message: pb.SamplingParams) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """(ids, values); few requests have any."""
    if not (message.logit_bias_ids or message.logit_bias_values):
        return (), ()
    ids = unpack_words(checks.packed_words(message.logit_bias_ids, limits.MAX_BIASES, "logit_bias_ids"))
    checks.same_length("logit_bias", ids, message.logit_bias_values)
    return ids, tuple(message.logit_bias_values)


def _read_sampling(message: pb.SamplingParams) -> SamplingParams:
    bias_ids, bias_values = _read_bias(message)
    checks.bounded(message.stop_token_ids, limits.MAX_STOP_TOKENS, "stop_token_ids")
    return SamplingParams(
        temperature=message.temperature,
        top_p=message.top_p,
        top_k=message.top_k,
        min_p=message.min_p,
        presence_penalty=message.presence_penalty,
        frequency_penalty=message.frequency_penalty,
        repetition_penalty=message.repetition_penalty,
        seed=message.seed,
        logit_bias_ids=bias_ids,
        logit_bias_values=bias_values,
        logprobs=message.logprobs,
        max_tokens=message.max_tokens,
        min_tokens=message.min_tokens,
        ignore_eos=message.ignore_eos,
        stop_token_ids=tuple(message.stop_token_ids),
    )
