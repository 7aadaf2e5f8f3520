"""Requests and configurations for tests of the core."""

from core_executor import VOCABULARY, pack, sampled_token

from pdcluster_worker.core.config import CoreConfig
from pdcluster_worker.core.events import Prepared
from pdcluster_worker.core.hashing import block_hashes
from pdcluster_worker.core.ids import RequestId
from pdcluster_worker.core.request import Request, SamplingParams
from pdcluster_worker.core.wire import Role


def make_config(role: Role = Role.MIXED, **changes: object) -> CoreConfig:
    settings: dict[str, object] = {
        "num_blocks": 64,
        "block_size": 4,
        "max_model_length": 64,
        "vocab_size": VOCABULARY,
        "model_id": "test",
        "max_batch_tokens": 16,
        "max_running_requests": 8,
    }
    return CoreConfig(role=role, **{**settings, **changes})  # type: ignore[arg-type]


def make_request(
    number: int, prompt: list[int] | int = 6, *, epoch: int = 1, output: int = 0, **options: object
) -> Request:
    """`prompt` may be a length; `output` is how many tokens the router has had already."""
    sampling = {key: options.pop(key) for key in list(options) if key in SamplingParams.__struct_fields__}
    sampling = {"seed": number, "max_tokens": 5, **sampling}
    tokens = prompt if isinstance(prompt, list) else [(number * 37 + index) % VOCABULARY for index in range(prompt)]
    had = [sampled_token(sampling["seed"], index) for index in range(output)]  # type: ignore[arg-type]
    return Request(
        request_id=RequestId(number.to_bytes(16, "little")),
        epoch=epoch,
        tokens=pack(tokens + had),
        prompt_length=len(tokens),
        sampling=SamplingParams(**sampling),  # type: ignore[arg-type]
        deadline=options.pop("deadline", 600.0),  # type: ignore[arg-type]
        **options,  # type: ignore[arg-type]
    )


def prepared(request: Request, block_size: int = 4) -> Prepared:
    hashes = block_hashes(request.tokens, block_size, "test", "layout", request.cache_salt)
    return Prepared(request=request, block_hashes=hashes, seconds=0.001)


def expected_tokens(request: Request) -> list[int]:
    """The undisturbed stream, from output index 0."""
    sampling = request.sampling
    tokens: list[int] = []
    while len(tokens) < sampling.max_tokens:
        tokens.append(sampled_token(sampling.seed, len(tokens)))
        if tokens[-1] in sampling.stop_token_ids and len(tokens) > sampling.min_tokens:
            break
    return tokens
