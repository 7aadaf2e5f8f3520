"""The requests of `make bench-seed`, and what a profile says about the least time for them. Pure."""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pdcluster_worker.executor.profile import Profile, decode_seconds, prefill_seconds

SEED = 7724
MEAN_PROMPT = 1280
MEAN_OUTPUT = 700


@dataclass(frozen=True, slots=True)
class Sizes:
    """Tokens of one request."""

    prompt: int
    output: int


def workload(number: int, output_share: float = 1.0) -> list[Sizes]:
    """Lengths uniform within half of their mean; the sums are exact. `output_share` shortens the outputs."""
    generator = random.Random(SEED)
    prompts = _spread(generator, number, MEAN_PROMPT)
    outputs = _spread(generator, number, round(MEAN_OUTPUT * output_share))
    return [Sizes(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]


def prompt_tokens(request: int, length: int, vocabulary: int) -> bytes:
    """Little-endian uint32; no two prompts share a prefix."""
    generator = random.Random(SEED * 1_000_003 + request)
    return b"".join(token.to_bytes(4, "little") for token in generator.choices(range(3, vocabulary), k=length))


def bound_seconds(profile: Profile, sizes: Sequence[Sizes], slots: int, budget: int) -> float:
    """No schedule of one prefill and one decode worker is faster."""
    decoded = sum(size.output - 1 for size in sizes)
    contexts = sum(context for size in sizes for context in range(size.prompt + 1, size.prompt + size.output))
    steps = -(-decoded // slots)
    decode = steps * profile.decode.base + decode_seconds(profile, decoded, contexts) - profile.decode.base
    prompts = sum(size.prompt for size in sizes)
    halves = sum(size.prompt**2 / 2 for size in sizes)
    steps = -(-prompts // budget)
    prefill = steps * profile.prefill.base + prefill_seconds(profile, prompts, halves) - profile.prefill.base
    first = min(prefill_seconds(profile, size.prompt, size.prompt**2 / 2) for size in sizes)
    return max(first + decode, prefill)


def ideal_seconds(profile: Profile, sizes: Sequence[Sizes], concurrency: int, slots: int, budget: int) -> float:
    """Makespan of a schedule in which everything but the two workers' steps takes no time at all."""
    return _Ideal(profile, sizes, slots, budget).run(concurrency)


class _Ideal:
    """Two clocks, prefill's and decode's; whichever is behind takes its next step. Prompts are not split."""

    def __init__(self, profile: Profile, sizes: Sequence[Sizes], slots: int, budget: int) -> None:
        self._profile = profile
        self._sizes = sizes
        self._slots = slots
        self._budget = budget
        self._unsent = deque(range(len(sizes)))
        self._queued: deque[tuple[float, int]] = deque()
        self._ready: deque[tuple[float, int]] = deque()
        self._running: dict[int, int] = {}
        """Output tokens so far."""
        self._prefill_free = self._decode_free = 0.0

    def run(self, concurrency: int) -> float:
        for _ in range(min(concurrency, len(self._sizes))):
            self._queued.append((0.0, self._unsent.popleft()))
        while self._queued or self._ready or self._running:
            prefill_at = max(self._prefill_free, self._queued[0][0]) if self._queued else float("inf")
            decode_at = self._decode_free
            if not self._running:
                decode_at = max(decode_at, self._ready[0][0]) if self._ready else float("inf")
            if prefill_at <= decode_at:
                self._prefill_step(prefill_at)
            else:
                self._decode_step(decode_at)
        return self._decode_free

    def _prefill_step(self, now: float) -> None:
        batch: list[int] = []
        tokens = 0
        while self._queued and self._queued[0][0] <= now:
            prompt = self._sizes[self._queued[0][1]].prompt
            if batch and tokens + prompt > self._budget:
                break
            batch.append(self._queued.popleft()[1])
            tokens += prompt
        halves = sum(self._sizes[request].prompt ** 2 / 2 for request in batch)
        self._prefill_free = now + prefill_seconds(self._profile, tokens, halves)
        self._ready.extend((self._prefill_free, request) for request in batch)

    def _decode_step(self, now: float) -> None:
        while self._ready and self._ready[0][0] <= now and len(self._running) < self._slots:
            self._running[self._ready.popleft()[1]] = 1
        contexts = sum(self._sizes[request].prompt + count for request, count in self._running.items())
        self._decode_free = now + decode_seconds(self._profile, len(self._running), contexts)
        for request in list(self._running):
            self._running[request] += 1
            if self._running[request] >= self._sizes[request].output:
                del self._running[request]
                if self._unsent:
                    self._queued.append((self._decode_free, self._unsent.popleft()))


def _spread(generator: random.Random, number: int, mean: int) -> list[int]:
    """Pairs that lie as far above the mean as below it, shuffled."""
    values = [mean] * (number % 2)
    for _ in range(number // 2):
        offset = generator.randint(0, mean // 2)
        values += [mean - offset, mean + offset]
    generator.shuffle(values)
    return values
