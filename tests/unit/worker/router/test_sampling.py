"""Defaults, limits and seeds of the choices that a request asks for."""

import msgspec
import pytest

from pdcluster_worker.models.tokenizer import Tokenizer
from pdcluster_worker.models.tokenizer_defaults import GenerationDefaults
from pdcluster_worker.router.errors import APIError
from pdcluster_worker.router.sampling import Choice, Limits, choice_seed, completion_choices
from pdcluster_worker.router.schemas import CompletionRequest

LIMITS = Limits(max_model_length=100, vocab_size=512)


def choices(defaults: GenerationDefaults | None = None, limits: Limits = LIMITS, **fields: object) -> list[Choice]:
    request = CompletionRequest.model_validate({"model": "m", "prompt": [1, 2, 3], **fields})
    return completion_choices(request, Tokenizer(None, None, defaults or GenerationDefaults()), limits)


def test_defaults_of_the_api() -> None:
    (choice,) = choices()
    sampling = choice.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (1.0, 1.0, 0, 0.0)
    assert (sampling.max_tokens, sampling.logprobs, sampling.repetition_penalty) == (16, -1, 1.0)


def test_defaults_of_the_checkpoint_come_first_and_the_request_before_them() -> None:
    defaults = GenerationDefaults((2,), temperature=0.5, top_p=0.9, top_k=40, min_p=0.1, repetition_penalty=1.1)
    (choice,) = choices(defaults)
    sampling = choice.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 40, 0.1)
    assert sampling.repetition_penalty == 1.1
    assert sampling.stop_token_ids == (2,)
    (asked,) = choices(defaults, temperature=0, top_k=-1, top_p=1)
    assert (asked.sampling.temperature, asked.sampling.top_k, asked.sampling.top_p) == (0.0, 0, 1.0)


def test_ignoring_the_end_leaves_no_end_tokens() -> None:
    (choice,) = choices(GenerationDefaults((2,)), ignore_eos=True)
    assert choice.sampling.ignore_eos
    assert choice.sampling.stop_token_ids == ()


def test_the_default_length_is_cut_to_the_room_but_a_wish_is_refused() -> None:
    assert choices(prompt=[1] * 90)[0].sampling.max_tokens == 10
    assert choices(prompt=[1] * 90, max_tokens=10)[0].sampling.max_tokens == 10
    with pytest.raises(APIError, match="100 tokens"):
        choices(prompt=[1] * 90, max_tokens=11)
    with pytest.raises(APIError, match="100 tokens"):
        choices(prompt=[1] * 100)


def test_ids_up_to_the_models_vocabulary_are_valid() -> None:
    assert choices(prompt=[511])[0].prompt == (511,)
    with pytest.raises(APIError, match="512"):
        choices(prompt=[512])


def test_a_model_without_tokenizer_takes_ids_only() -> None:
    with pytest.raises(APIError, match="no tokenizer"):
        choices(prompt="text")


def test_logit_bias_is_sorted() -> None:
    (choice,) = choices(logit_bias={"30": 1, "4": -2.5})
    assert choice.sampling.logit_bias_ids == (4, 30)
    assert choice.sampling.logit_bias_values == (-2.5, 1.0)


def test_seeds_differ_between_choices_and_agree_between_prompts() -> None:
    found = choices(prompt=[[1], [2]], n=3, seed=5)
    assert [choice.index for choice in found] == list(range(6))
    seeds = [choice.sampling.seed for choice in found]
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    assert seeds == [choice_seed(5, index) for index in (0, 1, 2, 0, 1, 2)]


def test_a_seed_means_the_same_for_ever() -> None:
    assert choice_seed(0, 0) == 17_828_810_592_356_214_272
    assert choice_seed(-1, 1) == choice_seed(2**64 - 1, 1)


def test_without_a_seed_each_request_has_its_own() -> None:
    assert choices()[0].sampling.seed != choices()[0].sampling.seed


def test_choices_differ_in_their_seed_alone() -> None:
    one, two = (choice.sampling for choice in choices(n=2, seed=1))
    assert msgspec.structs.replace(one, seed=0) == msgspec.structs.replace(two, seed=0)
