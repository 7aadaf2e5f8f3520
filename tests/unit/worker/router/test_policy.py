"""Which worker takes a prompt."""

import msgspec
import pytest

from pdcluster_worker.core.wire import Role
from pdcluster_worker.router.config import Policy
from pdcluster_worker.router.policy import Candidate, Chooser, PrefixMemory, block_hashes, routable

P = Candidate("p", Role.PREFILL, "v1", 0, 1000.0, 1, True)
D = Candidate("d", Role.DECODE, "v1", 0, 0.0, 1, True)
M = Candidate("m", Role.MIXED, "v1", 0, 1000.0, 0, True)


def like(candidate: Candidate, **changes: object) -> Candidate:
    return msgspec.structs.replace(candidate, **changes)


def chosen(workers: list[Candidate], tokens: int = 100, **options: object) -> str | None:
    policy = options.pop("policy", Policy.PREFIX_AWARE)
    best = Chooser(policy, options.pop("min_disagg_tokens", 0)).choose(workers, tokens, (), **options)
    return best.instance if best is not None else None


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([], []),
        ([M], ["m"]),
        ([P], []),
        ([D], []),
        ([P, D], ["p"]),
        ([P, like(D, pairing="v2")], []),
        ([like(P, kv_peers=0), D], []),
        ([like(P, kv_peers=0), like(P, instance="q"), D], ["q"]),
        ([like(P, available=False), D], []),
        ([P, like(D, available=False)], []),
        ([like(M, available=False)], []),
        ([P, D, M], ["p", "m"]),
    ],
)
def test_routable(workers: list[Candidate], expected: list[str]) -> None:
    assert [worker.instance for worker in routable(workers)] == expected


def test_the_shorter_queue_in_seconds() -> None:
    slow = like(P, instance="slow", queued_tokens=100, tokens_per_second=10.0)
    fast = like(P, instance="fast", queued_tokens=1000, tokens_per_second=1000.0)
    assert chosen([slow, fast, D]) == "fast"
    assert chosen([slow, fast, D], policy=Policy.LEAST_TOKENS) == "slow"


def test_round_robin_takes_turns() -> None:
    chooser = Chooser(Policy.ROUND_ROBIN, 0)
    workers = [like(P, instance="a"), like(P, instance="b", queued_tokens=9), D]
    turns = [chooser.choose(workers, 10, ()) for _ in range(4)]
    assert {turn.instance for turn in turns[:2] if turn} == {"a", "b"}
    assert [turn.instance for turn in turns[2:] if turn] == [turn.instance for turn in turns[:2] if turn]


def test_short_prompts_go_to_mixed_workers() -> None:
    assert chosen([P, D, M], 63, min_disagg_tokens=64) == "m"
    assert chosen([P, D, M], 64, min_disagg_tokens=64) == "p"
    assert chosen([P, D], 1, min_disagg_tokens=64) == "p"
    assert chosen([M], 1000, min_disagg_tokens=64) == "m"


def test_avoid_only_while_there_is_another() -> None:
    assert chosen([M, like(M, instance="n", queued_tokens=10**6)], avoid="m") == "n"
    assert chosen([M], avoid="m") == "m"


def test_a_known_prefix_outweighs_a_little_queue_but_not_a_long_one() -> None:
    tokens = bytes(64 * 4 * 10)
    hashes = block_hashes(tokens, "")
    chooser = Chooser(Policy.PREFIX_AWARE, 0)
    a, b = like(P, instance="a"), like(P, instance="b")
    first = chooser.choose([a, D], 640, hashes)
    assert first is not None
    busy = like(a, queued_tokens=300)
    again = chooser.choose([busy, b, D], 640, hashes)
    assert again is not None
    assert again.instance == "a"
    overloaded = like(a, queued_tokens=5000)
    away = chooser.choose([overloaded, b, D], 640, hashes)
    assert away is not None
    assert away.instance == "b"


def test_hashes_are_of_whole_blocks_and_depend_on_all_before_and_the_salt() -> None:
    one = bytes(range(256)) * 2
    assert len(block_hashes(one + b"1234", "")) == 2
    assert block_hashes(one, "")[0] == block_hashes(one[:256] + bytes(256), "")[0]
    assert block_hashes(one, "")[1] != block_hashes(bytes(256) + one[256:], "")[1]
    assert block_hashes(one, "") != block_hashes(one, "salt")


def test_memory_is_bounded() -> None:
    memory = PrefixMemory(most=4)
    memory.remember([1, 2, 3], "a")
    memory.remember([4, 5], "b")
    assert memory.matched([1], "a") == 0
    assert memory.matched([2, 3], "a") == 2
    assert memory.matched([4, 5], "b") == 2
    assert memory.matched([2, 4], "a") == 1
