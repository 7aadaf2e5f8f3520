"""Two executor processes, prefill and decode: KV bytes arrive in the leased blocks, whatever the schedule."""

from collections.abc import Callable

import numpy as np
import pytest
from kv_executors import SimulatedExecutor, admission, plan, transfer

from pdcluster_worker.ipc.messages import ToExecutor
from pdcluster_worker.kv.protocol import KVProtocol

SLOW = '{"verification": "full", "prefill_tokens_per_second": 100}'
LAYERS = 4

MakeExecutor = Callable[..., SimulatedExecutor]


def prompt(length: int, salt: int = 0) -> list[int]:
    return [(17 * position + 101 * salt) % 30_000 for position in range(length)]


def continue_there(decode: SimulatedExecutor, plan_id: int, slot: int, tokens: list[int], blocks: list[int]) -> int:
    """Decodes one token behind the prompt and its first token; the runner compares all KV that it reads."""
    decode.send(
        ToExecutor(
            plans=(
                plan(
                    plan_id,
                    [(slot, len(tokens) - 1, 1, True)],
                    [admission(slot, tokens, blocks, prompt_length=len(tokens) - 1)],
                ),
            )
        )
    )
    return decode.step(plan_id).tokens[0]


def assert_same_bytes(
    prefill: SimulatedExecutor, decode: SimulatedExecutor, local: list[int], remote: list[int]
) -> None:
    """Blocks equal what the prefill side holds; everything else on the decode side is untouched."""
    for layer in range(LAYERS):
        here, there = prefill.read_memory(layer), decode.read_memory(layer)
        assert np.array_equal(here[:, local], there[:, remote])
        untouched = np.setdiff1d(np.arange(there.shape[1]), remote)
        assert not there[:, untouched].any()


@pytest.mark.parametrize("protocol", [KVProtocol.IPC, KVProtocol.TCP])
def test_chunked_prefill_then_decode_there(make_executor: MakeExecutor, protocol: KVProtocol) -> None:
    prefill, decode = make_executor(protocol), make_executor(protocol)
    prefill.add_peer("decode", decode)
    tokens, local, remote = prompt(100), list(range(3, 10)), [5, 6, 7, 20, 21, 30, 29]
    spec = transfer(1, 2, local, remote, tokens=100)
    prefill.send(
        ToExecutor(
            plans=(
                plan(1, [(2, 0, 40, False)], [admission(2, tokens, local)], [spec]),
                plan(2, [(2, 40, 33, False)]),
                plan(3, [(2, 73, 27, True)]),
            )
        )
    )
    first = prefill.step(3).tokens[0]
    report = prefill.transfer(1)
    assert (report.ok, report.reason) == (True, "")
    assert report.bytes == 7 * 2 * LAYERS * prefill.ready.metadata.block_bytes
    assert_same_bytes(prefill, decode, local, remote)
    second = continue_there(decode, 1, 0, [*tokens, first], remote)
    prefill.send(ToExecutor(plans=(plan(4, [(2, 100, 1, True)], appended=[(2, (40,))]),)))
    assert prefill.step(4).tokens == [second]


def test_blocks_that_the_peer_has_are_not_sent(make_executor: MakeExecutor) -> None:
    prefill, decode = make_executor(KVProtocol.IPC), make_executor(KVProtocol.IPC)
    prefill.add_peer("decode", decode)
    tokens, local, remote = prompt(64), [0, 1, 2, 3], [10, 11, 12, 13]
    spec = transfer(1, 0, local, remote, tokens=64, first_block=2)
    prefill.send(ToExecutor(plans=(plan(1, [(0, 0, 64, True)], [admission(0, tokens, local)], [spec]),)))
    assert prefill.transfer(1).ok
    assert_same_bytes(prefill, decode, local[2:], remote[2:])


def test_a_prefix_hit_is_sent_though_not_computed(make_executor: MakeExecutor) -> None:
    prefill, decode = make_executor(KVProtocol.IPC), make_executor(KVProtocol.IPC)
    prefill.add_peer("decode", decode)
    tokens, local, remote = prompt(50), [0, 1, 2, 3], [10, 11, 12, 13]
    prefill.send(ToExecutor(plans=(plan(1, [(0, 0, 50, True)], [admission(0, tokens, local)]),)))
    prefill.step(1)
    again, here = [*prompt(48), 7, 8], [0, 1, 2, 9]
    spec = transfer(1, 1, here, remote, tokens=50, computed=48)
    prefill.send(ToExecutor(plans=(plan(2, [(1, 48, 2, True)], [admission(1, again, here)], [spec]),)))
    first = prefill.step(2).tokens[0]
    assert prefill.transfer(1).ok
    assert_same_bytes(prefill, decode, here, remote)
    continue_there(decode, 1, 0, [*again, first], remote)


def test_a_new_lease_is_filled_from_kept_blocks(make_executor: MakeExecutor) -> None:
    prefill, decode = make_executor(KVProtocol.IPC), make_executor(KVProtocol.IPC)
    prefill.add_peer("decode", decode)
    tokens, local, remote = prompt(50), [0, 1, 2, 3], [10, 11, 12, 13]
    prefill.send(ToExecutor(plans=(plan(1, [(0, 0, 50, True)], [admission(0, tokens, local)]), plan(2, drop=[0]))))
    prefill.step(2)
    prefill.send(ToExecutor(transfers=(transfer(9, -1, local, remote, tokens=50, computed=50),)))
    assert prefill.transfer(9).ok
    assert_same_bytes(prefill, decode, local, remote)


def test_a_new_lease_during_the_prefill_misses_no_chunk(make_executor: MakeExecutor) -> None:
    prefill, decode = make_executor(KVProtocol.TCP, SLOW), make_executor(KVProtocol.TCP)
    prefill.add_peer("decode", decode)
    tokens, local, remote = prompt(60), [0, 1, 2, 3], [10, 11, 12, 13]
    prefill.send(
        ToExecutor(plans=(plan(1, [(0, 0, 20, False)], [admission(0, tokens, local)]), plan(2, [(0, 20, 20, False)])))
    )
    prefill.step(1)
    prefill.send(
        ToExecutor(
            transfers=(transfer(1, 0, local, remote, tokens=60, computed=20),), plans=(plan(3, [(0, 40, 20, True)]),)
        )
    )
    assert prefill.transfer(1).ok
    assert_same_bytes(prefill, decode, local, remote)


@pytest.mark.parametrize("protocol", [KVProtocol.IPC, KVProtocol.TCP])
def test_several_transfers_at_once_to_two_peers(make_executor: MakeExecutor, protocol: KVProtocol) -> None:
    prefill, peers = make_executor(protocol), {"decode": make_executor(protocol), "other": make_executor(protocol)}
    for name, peer in peers.items():
        prefill.add_peer(name, peer)
    prompts = {slot: prompt(30 + slot, salt=slot) for slot in range(6)}
    local = {slot: [3 * slot, 3 * slot + 1, 3 * slot + 2] for slot in prompts}
    remote = {slot: [40 - 3 * slot, 60 - slot, 50 - slot] for slot in prompts}
    names = {slot: "decode" if slot % 2 else "other" for slot in prompts}
    specs = [
        transfer(slot, slot, local[slot], remote[slot], tokens=len(prompts[slot]), peer=names[slot]) for slot in prompts
    ]
    prefill.send(
        ToExecutor(
            plans=(
                plan(
                    1,
                    [(slot, 0, 16, False) for slot in prompts],
                    [admission(slot, prompts[slot], local[slot], seed=slot) for slot in prompts],
                    specs,
                ),
                plan(2, [(slot, 16, len(prompts[slot]) - 16, True) for slot in prompts]),
            )
        )
    )
    firsts = dict(zip(prefill.step(2).slots, prefill.step(2).tokens, strict=True))
    for slot in prompts:
        assert prefill.transfer(slot).ok
        continue_there(peers[names[slot]], slot, slot, [*prompts[slot], firsts[slot]], remote[slot])
