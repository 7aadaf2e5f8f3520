import pytest
from core_requests import make_request

from pdcluster_worker.core.wire import Role
from pdcluster_worker.engine.roles import make_role
from pdcluster_worker.engine.validate import ModelLimits, check_request
from pdcluster_worker.errors import ValidationError

LIMITS = ModelLimits(max_model_length=64, vocab_size=1000)


@pytest.mark.parametrize(
    ("options", "param", "limit"),
    [
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": [1, 1000]}, "prompt", "1000"),
        ({"prompt": 64}, "prompt", "64"),
        ({"max_tokens": 0}, "max_tokens", "1"),
        ({"max_tokens": 59}, "max_tokens", "58"),
        ({"temperature": -0.1}, "temperature", "0"),
        ({"temperature": 2.1}, "temperature", "2"),
        ({"temperature": float("nan")}, "temperature", "2"),
        ({"top_p": 0.0}, "top_p", "1"),
        ({"top_p": 1.1}, "top_p", "1"),
        ({"top_k": -1}, "top_k", "0"),
        ({"min_p": -0.1}, "min_p", "0"),
        ({"presence_penalty": 2.5}, "presence_penalty", "2"),
        ({"frequency_penalty": -2.5}, "frequency_penalty", "2"),
        ({"repetition_penalty": 0.0}, "repetition_penalty", "0"),
        ({"logprobs": -2}, "logprobs", "20"),
        ({"logprobs": 21}, "logprobs", "20"),
        ({"min_tokens": 6}, "min_tokens", "5"),
        ({"stop_token_ids": (1000,)}, "stop_token_ids", "999"),
        ({"logit_bias_ids": (1000,), "logit_bias_values": (1.0,)}, "logit_bias", "999"),
        ({"logit_bias_ids": (1,), "logit_bias_values": (101.0,)}, "logit_bias", "100"),
        ({"logit_bias_ids": (1,), "logit_bias_values": ()}, "logit_bias", "many"),
    ],
)
def test_what_is_wrong_is_named_with_its_limit(options: dict[str, object], param: str, limit: str) -> None:
    with pytest.raises(ValidationError) as caught:
        check_request(make_request(1, **options), LIMITS)  # type: ignore[arg-type]
    assert caught.value.param == param
    assert param in str(caught.value)
    assert limit in str(caught.value)


def test_the_limits_themselves_are_allowed() -> None:
    check_request(make_request(1, 63, max_tokens=1), LIMITS)
    check_request(make_request(1, 6, max_tokens=58), LIMITS)
    check_request(make_request(1, [999], temperature=2.0, top_p=1.0, min_p=1.0, logprobs=20, min_tokens=5), LIMITS)


def test_a_resubmitted_request_brings_its_output() -> None:
    check_request(make_request(1, 60, output=2, max_tokens=4), LIMITS)
    check_request(make_request(1, 6, output=5, max_tokens=5), LIMITS)
    with pytest.raises(ValidationError, match="max_tokens"):
        check_request(make_request(1, 6, output=5, max_tokens=4), LIMITS)


@pytest.mark.parametrize("role", [Role.PREFILL, Role.MIXED])
def test_computing_roles_hash_full_blocks(role: Role) -> None:
    parts = make_role(role, LIMITS, 4, "model", "layout")
    hashes = parts.prepare(make_request(1, 10))
    assert len(hashes) == 2 * 32
    assert parts.prepare(make_request(1, 10)) == hashes
    assert parts.prepare(make_request(1, 10, cache_salt="other")) != hashes
    assert parts.links_to_decode is (role is Role.PREFILL)
    assert not parts.serves_links


def test_a_decode_worker_takes_no_requests() -> None:
    parts = make_role(Role.DECODE, LIMITS, 4, "model", "layout")
    assert parts.serves_links
    with pytest.raises(ValidationError, match="only decodes"):
        parts.prepare(make_request(1))
