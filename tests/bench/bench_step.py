"""The scheduler alone: milliseconds to plan one decode step and to take in its result. `make bench-step`.

A mixed core is filled with requests of 1,280 prompt tokens; then it decodes. Each step is one StepDone handled and
one take, with the next plan always out, as in the engine loop; nothing is sent anywhere. The fastest of several
runs counts, and the median step of a run: what else this machine does is not the scheduler's.
"""

import statistics
import time

from report import QUICK, at_most, finish, table

from pdcluster_worker.core.config import CoreConfig
from pdcluster_worker.core.core import Core
from pdcluster_worker.core.effects import Outbox
from pdcluster_worker.core.events import Prepared, SampledTokens, StepDone, StreamOpened, Submitted
from pdcluster_worker.core.ids import PlanId, RequestId, StreamId
from pdcluster_worker.core.plan import StepPlan
from pdcluster_worker.core.request import Request, SamplingParams
from pdcluster_worker.core.wire import Role

PROMPT = 1280
BLOCK = 64
HASH_BYTES = 32
STREAM = StreamId(1)
STEPS = 200 if QUICK else 600
RUNS = 3 if QUICK else 5
FAR = 1e9


def filled_core(running: int) -> tuple[Core, list[StepPlan]]:
    """A core in which `running` requests decode, and the plans that are out."""
    blocks = -(-(PROMPT + STEPS + BLOCK) // BLOCK) * (running + 1)
    config = CoreConfig(
        role=Role.MIXED,
        num_blocks=blocks,
        block_size=BLOCK,
        max_model_length=8192,
        vocab_size=100_000,
        model_id="bench",
        max_batch_tokens=1 << 20,
        max_running_requests=running,
    )
    core = Core(config, 0.0)
    core.handle(StreamOpened(stream=STREAM), 0.0)
    for number in range(running):
        submit(core, number)
    return core, list(core.take(0.0).plans)


def submit(core: Core, number: int) -> None:
    request = Request(
        request_id=RequestId(number.to_bytes(16, "little")),
        epoch=1,
        tokens=number.to_bytes(4, "little") * PROMPT,
        prompt_length=PROMPT,
        sampling=SamplingParams(max_tokens=STEPS * 2, ignore_eos=True),
        deadline=FAR,
    )
    core.handle(Submitted(stream=STREAM, handle=number, request=request), 0.0)
    hashes = number.to_bytes(HASH_BYTES, "little") * (PROMPT // BLOCK)
    core.handle(Prepared(request=request, block_hashes=hashes, seconds=0.0), 0.0)


def answer(core: Core, plan: StepPlan, now: float) -> Outbox:
    """The executor's side: a token for each entry that samples."""
    slots = [slot for slot, samples in zip(plan.slots, plan.samples, strict=True) if samples]
    sampled = SampledTokens(slots=slots, tokens=[7] * len(slots))
    core.handle(StepDone(plan=PlanId(plan.plan_id), sampled=sampled, seconds=0.001), now)
    return core.take(now)


def step_milliseconds(running: int) -> list[float]:
    """Of each of STEPS decode steps."""
    core, out = filled_core(running)
    while core.snapshot().requests_running < running or not all(set(plan.counts) == {1} for plan in out):
        out.extend(answer(core, out.pop(0), 0.0).plans)
    times = []
    slots = list(out[0].slots)
    tokens = [7] * running
    for step in range(STEPS):
        done = StepDone(plan=PlanId(out.pop(0).plan_id), sampled=SampledTokens(slots, tokens), seconds=0.001)
        start = time.perf_counter()
        core.handle(done, float(step))
        outbox = core.take(float(step))
        times.append((time.perf_counter() - start) * 1e3)
        assert len(outbox.plans) == 1
        assert len(outbox.routers[STREAM].tokens) == running
        out.extend(outbox.plans)
    return times


def main() -> None:
    figures: dict[str, float] = {}
    rows = []
    for running in (256, 1024):
        runs = [step_milliseconds(running) for _ in range(RUNS)]
        best = min(runs, key=statistics.median)
        figures[f"milliseconds_at_{running}"] = round(statistics.median(best), 4)
        rows.append([running, statistics.median(best), statistics.quantiles(best, n=100)[98]])
    table(["running", "median ms", "p99 ms"], rows)
    finish("step", figures, [at_most("milliseconds_at_256", 0.7)])


if __name__ == "__main__":
    main()
