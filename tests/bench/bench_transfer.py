"""KV transfer between two executor processes at the shape of ERNIE-4.5-0.3B. `make bench-transfer`.

Real executors with simulated models: the layer-wise sender, NIXL and the blocks are the product's. Blocks are scattered
in both pools, so that neighbours cannot be joined; a second row shows contiguous ones. `ratio_to_raw` compares with one
prepared NIXL write of the same blocks, posted again and again with a core spinning on its completion.

`hidden_fraction`: prefill is paced at 8 ms per 1,280 tokens in chunks of 256, and its KV leaves layer by layer. What
is left of the transfer when the prefill has ended is not hidden: 1 - (last completion - end of prefill) / (alone).
"""

import os
import random
import statistics
from collections.abc import Sequence

from raw_nixl import Blocks, raw_seconds
from report import QUICK, at_least, finish, say, table
from timed_executor import TimedExecutor

from pdcluster_worker.core.plan import Admission, StepPlan, TransferSpec
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.ipc.messages import ToExecutor
from pdcluster_worker.kv.protocol import KVProtocol
from pdcluster_worker.kv.registry import ucx_environment

LAYERS, KV_HEADS, HEAD_DIM, BLOCK_SIZE = 18, 2, 128, 64
PROMPT, CHUNK = 1280, 256
PREFILL_SECONDS = 0.008
POOL = 128
LIFETIME = 20.0
REPEATS = 20 if QUICK else 100
WARM_UP = 5
ROUNDS = 2 if QUICK else 5
SHAPE = {
    "layers": LAYERS,
    "kv_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "dtype": "bfloat16",
    "verification": "off",
    "max_model_length": 4096,
}
PACED = SHAPE | {"prefill_tokens_per_second": PROMPT / PREFILL_SECONDS}
BLOCK_BYTES = KV_HEADS * BLOCK_SIZE * HEAD_DIM * 2
PROMPT_BYTES = 2 * LAYERS * BLOCK_BYTES * (PROMPT // BLOCK_SIZE)


class Pair:
    """A prefill and a decode executor. Every transfer has its own plan, slot 0 and the same blocks."""

    def __init__(self, protocol: KVProtocol, prefill_profile: dict[str, object], blocks: Blocks) -> None:
        self._prefill = TimedExecutor(protocol, prefill_profile, POOL, BLOCK_SIZE)
        self._decode = TimedExecutor(protocol, SHAPE, POOL, BLOCK_SIZE)
        self._prefill.add_peer("decode", self._decode)
        self._blocks = blocks
        self._transfers = 0
        self._plans = 0

    def alone(self) -> float:
        """Seconds of a transfer whose KV is all there already."""
        self._transfers += 1
        self._prefill.send(ToExecutor(transfers=(self._spec(slot=-1, computed=PROMPT),)))
        return self._prefill.transfer(self._transfers).report.seconds

    def layer_wise(self, chunk: int) -> tuple[float, float]:
        """A prefill in chunks: seconds of its transfer, and seconds from the prefill's end to the last completion."""
        self._transfers += 1
        spec = self._spec(slot=0, computed=0)
        plans = [self._chunk(start, chunk, spec) for start in range(0, PROMPT, chunk)]
        self._prefill.send(ToExecutor(plans=tuple(plans)))
        ended = self._prefill.step(plans[-1].plan_id)
        transfer = self._prefill.transfer(self._transfers)
        assert transfer.report.ok, transfer.report.reason
        assert transfer.report.bytes == PROMPT_BYTES, transfer.report.bytes
        return transfer.report.seconds, transfer.at - ended.at

    def close(self) -> None:
        self._prefill.close()
        self._decode.close()

    def _spec(self, slot: int, computed: int) -> TransferSpec:
        return TransferSpec(
            transfer_id=self._transfers,
            slot=slot,
            peer="decode",
            first_block=0,
            local_blocks=self._blocks.local,
            remote_blocks=self._blocks.remote,
            tokens=PROMPT,
            computed_tokens=computed,
            lifetime=LIFETIME,
        )

    def _chunk(self, start: int, count: int, spec: TransferSpec) -> StepPlan:
        self._plans += 1
        last = start + count == PROMPT
        return StepPlan(
            plan_id=self._plans,
            drop_slots=(0,) if start == 0 and self._plans > 1 else (),
            admissions=(self._admission(),) if start == 0 else (),
            transfers=(spec,) if start == 0 else (),
            slots=(0,),
            starts=(start,),
            counts=(count,),
            samples=(last,),
        )

    def _admission(self) -> Admission:
        return Admission(
            slot=0,
            request_id=bytes(16),
            epoch=1,
            tokens=bytes(4 * PROMPT),
            prompt_length=PROMPT,
            sampling=SamplingParams(),
            block_ids=self._blocks.local,
        )


def scattered(seed: int) -> tuple[int, ...]:
    """Every other block, in disorder: none follows its neighbour."""
    blocks = list(range(0, POOL, 2))
    random.Random(seed).shuffle(blocks)
    return tuple(blocks[: PROMPT // BLOCK_SIZE])


def raw_blocks(blocks: Blocks) -> Blocks:
    """The same blocks of K and V of every layer, as places in one region."""
    offsets = [half * POOL for half in range(2 * LAYERS)]
    return Blocks(
        BLOCK_BYTES,
        tuple(offset + block for offset in offsets for block in blocks.local),
        tuple(offset + block for offset in offsets for block in blocks.remote),
    )


def lower_quartile(times: Sequence[float]) -> float:
    """What it takes when other programs leave the cores alone; without the first few."""
    return statistics.quantiles(times[WARM_UP:], n=4)[0]


def rates(protocol: KVProtocol, blocks: Blocks) -> dict[str, float]:
    """Gigabytes per second, raw and ours in turns: layer by layer, of a prefill in one step that takes no time."""
    pair = Pair(protocol, SHAPE, blocks)
    raw: list[float] = []
    ours: list[float] = []
    for _ in range(ROUNDS):
        raw.append(lower_quartile(raw_seconds(raw_blocks(blocks), 2 * LAYERS * POOL, protocol, REPEATS + WARM_UP)))
        ours.append(lower_quartile([pair.layer_wise(PROMPT)[0] for _ in range(REPEATS + WARM_UP)]))
    pair.close()
    return {
        "raw": PROMPT_BYTES / min(raw) / 1e9,
        "ours": PROMPT_BYTES / min(ours) / 1e9,
        "ratio": min(raw) / min(ours),
    }


def hidden_fraction(protocol: KVProtocol, blocks: Blocks) -> dict[str, float]:
    pair = Pair(protocol, PACED, blocks)
    alone = lower_quartile([pair.alone() for _ in range(REPEATS + WARM_UP)])
    left = lower_quartile([pair.layer_wise(CHUNK)[1] for _ in range(REPEATS + WARM_UP)])
    pair.close()
    return {"alone_seconds": alone, "left_seconds": left, "fraction": 1 - max(0.0, left) / alone}


def main() -> None:
    os.environ.update(ucx_environment(KVProtocol.IPC, on_device=False, host="127.0.0.1"))
    scatter = Blocks(BLOCK_BYTES, scattered(1), scattered(2))
    straight = Blocks(BLOCK_BYTES, tuple(range(20)), tuple(range(40, 60)))
    cases = {"scattered": rates(KVProtocol.IPC, scatter), "contiguous": rates(KVProtocol.IPC, straight)}
    hidden = hidden_fraction(KVProtocol.IPC, scatter)
    table(
        ["blocks", "raw GB/s", "ours GB/s", "ratio"],
        [[name, case["raw"], case["ours"], case["ratio"]] for name, case in cases.items()],
    )
    say(f"alone {hidden['alone_seconds'] * 1e3:.2f} ms; left after prefill {hidden['left_seconds'] * 1e3:.3f} ms")
    figures = {
        "gigabytes_per_second": cases["scattered"]["ours"],
        "ratio_to_raw": cases["scattered"]["ratio"],
        "hidden_fraction": hidden["fraction"],
        "block_bytes": BLOCK_BYTES,
        "cases": cases,
        "hidden": hidden,
    }
    finish("transfer", figures, [at_least("ratio_to_raw", 0.9), at_least("hidden_fraction", 0.9)])


if __name__ == "__main__":
    main()
