"""Drives a ModelRunner as the executor does: slots with tokens and blocks, steps of chosen composition."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pdcluster_worker.config import EngineConfig, ExecutorConfig, KVProtocol
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.executor.runner import ModelRunner, Sampled, SamplingState, StepBatch

GREEDY = SamplingParams(temperature=0.0)


def executor_config(path: Path, gpu_count: int = 0, world_size: int = 1, **engine: Any) -> ExecutorConfig:
    return ExecutorConfig(
        model_path=path,
        model_name="model",
        engine=EngineConfig(**engine),
        kv_protocol=KVProtocol.TCP,
        gpu_count=gpu_count,
        rank=0,
        world_size=world_size,
        plan_socket="",
        report_socket="",
        instance_id="test",
        threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
    )


def paddle_runner(
    path: Path, on_progress: Callable[[float], None] = lambda fraction: None, **engine: Any
) -> ModelRunner:
    from pdcluster_worker.executor.paddle_runner import PaddleRunner

    return PaddleRunner(executor_config(path, **engine), on_progress)


@dataclass
class Running:
    """One request: `tokens` grow as they are sampled, `computed` counts those whose KV is in `blocks`."""

    tokens: list[int]
    blocks: list[int]
    params: SamplingParams = GREEDY
    computed: int = 0
    prompt_length: int = 0
    sampled: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_length = self.prompt_length or len(self.tokens)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    @property
    def behind(self) -> int:
        return len(self.tokens) - self.computed


class Driver:
    """Hands out a runner's blocks in a shuffled order and runs steps over sequences."""

    def __init__(self, runner: ModelRunner, seed: int = 0) -> None:
        self.runner = runner
        self.layers: list[int] = []
        self._free = np.random.default_rng(seed).permutation(runner.layout.num_blocks).tolist()

    def sequence(self, prompt: Sequence[int], room: int, params: SamplingParams = GREEDY) -> Running:
        needed = -(-(len(prompt) + room) // self.runner.layout.block_size)
        return Running(list(prompt), [self._free.pop() for _ in range(needed)], params)

    def release(self, sequence: Running) -> None:
        self._free += sequence.blocks
        sequence.blocks = []

    def step(self, work: Sequence[tuple[Running, int]]) -> Sampled:
        """Computes that many tokens of each sequence; those that reach their last token sample one."""
        batch = self.batch(work)
        self.layers = []
        sampled = self.runner.execute(batch, self.layers.append)
        for index, entry in enumerate(batch.sample_entries.tolist()):
            work[entry][0].tokens.append(sampled.tokens[index])
            work[entry][0].sampled.append(sampled.logprobs.get(index))
        for sequence, count in work:
            sequence.computed += count
        return sampled

    def batch(self, work: Sequence[tuple[Running, int]]) -> StepBatch:
        width = max(len(sequence.blocks) for sequence, _ in work)
        tables = np.full((len(work), width), -1, np.int32)
        for row, (sequence, _) in enumerate(work):
            tables[row, : len(sequence.blocks)] = sequence.blocks
        spans = [(s, s.computed, s.computed + count) for s, count in work]
        sampling = [(i, s, end) for i, (s, _, end) in enumerate(spans) if end == len(s.tokens)]
        return StepBatch(
            token_ids=np.concatenate([np.array(s.tokens[a:b], np.int32) for s, a, b in spans]),
            positions=np.concatenate([np.arange(a, b, dtype=np.int32) for _, a, b in spans]),
            starts=np.array([a for _, a, _ in spans], np.int32),
            counts=np.array([b - a for _, a, b in spans], np.int32),
            block_tables=tables,
            sample_entries=np.array([i for i, _, _ in sampling], np.int32),
            sampling=tuple(
                SamplingState(s.params, np.array(s.tokens[:end], np.int32), s.prompt_length) for _, s, end in sampling
            ),
        )

    def generate(self, sequences: Sequence[Running], count: int, budget: int = 1 << 20) -> None:
        """Until each has `count` output tokens; a step computes at most `budget` tokens, decodes first."""
        while unfinished := [s for s in sequences if len(s.output) < count]:
            work: list[tuple[Running, int]] = []
            left = budget
            for sequence in sorted(unfinished, key=lambda s: s.behind):
                if take := min(sequence.behind, left):
                    work.append((sequence, take))
                    left -= take
            self.step(work)


def generate(runner: ModelRunner, prompt: Sequence[int], count: int, budget: int = 1 << 20) -> list[int]:
    """Greedy, alone."""
    driver = Driver(runner)
    sequence = driver.sequence(prompt, count)
    driver.generate([sequence], count, budget)
    return sequence.output
