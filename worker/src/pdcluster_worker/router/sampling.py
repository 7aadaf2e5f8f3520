"""From a checked request to what is computed: one Choice per prompt and repetition, each a request of its own. Pure."""

import hashlib
import secrets
import struct
from collections.abc import Mapping, Sequence

import msgspec

from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.errors import ValidationError
from pdcluster_worker.models.tokenizer import Tokenizer
from pdcluster_worker.models.tokenizer_defaults import GenerationDefaults
from pdcluster_worker.router.errors import bad_request
from pdcluster_worker.router.schemas import ChatRequest, CompletionRequest, GenerationRequest

COMPLETION_MAX_TOKENS = 16


class Limits(msgspec.Struct, frozen=True):
    """What the live workers allow, or the checkpoint before any is known."""

    max_model_length: int
    vocab_size: int


class Choice(msgspec.Struct, frozen=True):
    """`text` is the prompt's, when it was text and is to be echoed."""

    index: int
    prompt: tuple[int, ...]
    sampling: SamplingParams
    text: str = ""


def completion_choices(request: CompletionRequest, tokenizer: Tokenizer, limits: Limits) -> list[Choice]:
    choices: list[Choice] = []
    prompts = request.prompts()
    for position, prompt in enumerate(prompts):
        field = "prompt" if len(prompts) == 1 else f"prompt[{position}]"
        ids = _encode(prompt, field, tokenizer, limits)
        most = _max_tokens(len(ids), request.max_tokens, COMPLETION_MAX_TOKENS, "max_tokens", field, limits)
        text = prompt if isinstance(prompt, str) else tokenizer.decode(ids)
        sampling = _sampling(request, tokenizer.defaults, limits, most, request.logprobs)
        for repeated in _repeat(request, sampling):
            choices.append(Choice(len(choices), ids, repeated, text if request.echo else ""))
    return choices


def chat_choices(request: ChatRequest, tokenizer: Tokenizer, limits: Limits) -> list[Choice]:
    messages = [{"role": message.role, "content": message.text()} for message in request.messages]
    _check_fits(_least(messages, tokenizer), "messages", limits)
    try:
        prompt = tuple(tokenizer.chat(messages))
    except ValidationError as error:
        raise bad_request(str(error), "messages") from error
    if not prompt:
        raise bad_request("messages give an empty prompt", "messages", "empty_prompt")
    _check_ids(prompt, "messages", limits)
    completion = request.max_completion_tokens
    name, asked = (
        ("max_completion_tokens", completion) if completion is not None else ("max_tokens", request.max_tokens)
    )
    most = _max_tokens(len(prompt), asked, limits.max_model_length, name, "messages", limits)
    logprobs = (request.top_logprobs or 0) if request.logprobs else None
    samplings = _repeat(request, _sampling(request, tokenizer.defaults, limits, most, logprobs))
    return [Choice(index, prompt, sampling) for index, sampling in enumerate(samplings)]


def choice_seed(seed: int, index: int) -> int:
    """The seed of choice `index` of n: unsigned 64 bits, the same for the same pair on every router."""
    digest = hashlib.blake2b(struct.pack("<QI", seed % 2**64, index), digest_size=8, person=b"pdc-choice").digest()
    return int.from_bytes(digest, "little")


def _encode(prompt: str | list[int], field: str, tokenizer: Tokenizer, limits: Limits) -> tuple[int, ...]:
    if isinstance(prompt, str) and tokenizer.longest_piece:
        _check_fits(len(prompt) // tokenizer.longest_piece, field, limits)
    try:
        ids = _ids(prompt, tokenizer)
    except ValidationError as error:
        raise bad_request(str(error), error.param or field) from error
    if not ids:
        raise bad_request(f"{field} is empty: at least one token is needed", field, "empty_prompt")
    _check_ids(ids, field, limits)
    return tuple(ids)


def _least(messages: Sequence[Mapping[str, str]], tokenizer: Tokenizer) -> int:
    """Tokens that the messages have at least: every one has some, whatever the template."""
    characters = sum(len(message["content"]) for message in messages)
    return max(len(messages), characters // tokenizer.longest_piece if tokenizer.longest_piece else 0)


def _check_fits(least: int, field: str, limits: Limits) -> None:
    """What cannot fit, whatever its tokens are, is not worth tokenising."""
    if least >= limits.max_model_length:
        message = f"{field} has at least {least} tokens, but prompt and output together are limited to"
        message = f"{message} {limits.max_model_length} tokens"
        raise bad_request(message, field.partition("[")[0], "context_length_exceeded")


def _ids(prompt: str | list[int], tokenizer: Tokenizer) -> list[int]:
    if isinstance(prompt, str):
        return tokenizer.encode(prompt) if prompt else []
    return prompt


def _check_ids(ids: Sequence[int], field: str, limits: Limits) -> None:
    if max(ids, default=0) >= limits.vocab_size:
        raise bad_request(f"{field}: token id {max(ids)} is not below the vocabulary size {limits.vocab_size}", field)


def _max_tokens(prompt: int, asked: int | None, default: int, name: str, field: str, limits: Limits) -> int:
    """Output tokens allowed; an explicit wish is refused rather than cut."""
    limit = limits.max_model_length
    if prompt >= limit:
        message = f"{field} has {prompt} tokens, but prompt and output together are limited to {limit} tokens"
        raise bad_request(message, field.partition("[")[0], "context_length_exceeded")
    if asked is None:
        return min(default, limit - prompt)
    if prompt + asked > limit:
        message = f"{name} {asked} plus {prompt} prompt tokens exceed the limit of {limit} tokens"
        raise bad_request(message, name, "context_length_exceeded")
    return asked


def _repeat(request: GenerationRequest, sampling: SamplingParams) -> list[SamplingParams]:
    seed = request.seed if request.seed is not None else secrets.randbits(64)
    return [msgspec.structs.replace(sampling, seed=choice_seed(seed, index)) for index in range(request.n or 1)]


def _sampling(
    request: GenerationRequest, defaults: GenerationDefaults, limits: Limits, max_tokens: int, logprobs: int | None
) -> SamplingParams:
    if (request.min_tokens or 0) > max_tokens:
        raise bad_request(f"min_tokens {request.min_tokens} is above max_tokens {max_tokens}", "min_tokens")
    bias = _logit_bias(request.logit_bias or {}, limits)
    return SamplingParams(
        temperature=_first(request.temperature, defaults.temperature, 1.0),
        top_p=_first(request.top_p, defaults.top_p, 1.0),
        top_k=max(0, int(_first(request.top_k, defaults.top_k, 0))),
        min_p=_first(request.min_p, defaults.min_p, 0.0),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        repetition_penalty=_first(request.repetition_penalty, defaults.repetition_penalty, 1.0),
        logit_bias_ids=tuple(token for token, _ in bias),
        logit_bias_values=tuple(value for _, value in bias),
        logprobs=-1 if logprobs is None else logprobs,
        max_tokens=max_tokens,
        min_tokens=request.min_tokens or 0,
        ignore_eos=bool(request.ignore_eos),
        stop_token_ids=() if request.ignore_eos else defaults.end_tokens,
    )


def _first(asked: float | None, default: float | None, fallback: float) -> float:
    if asked is not None:
        return asked
    return default if default is not None else fallback


def _logit_bias(bias: dict[str, float], limits: Limits) -> list[tuple[int, float]]:
    found = {}
    for key, value in bias.items():
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 11 else -1
        if not 0 <= token < limits.vocab_size:
            message = f"logit_bias: {key!r} is not a token id below the vocabulary size {limits.vocab_size}"
            raise bad_request(message, "logit_bias")
        found[token] = value
    return sorted(found.items())
