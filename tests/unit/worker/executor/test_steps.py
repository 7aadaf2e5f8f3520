"""The step loop: order, reports, and what the sender hears."""

from pathlib import Path

import numpy as np
import pytest

from pdcluster_worker.config import EngineConfig, ExecutorConfig, KVProtocol, RunnerKind
from pdcluster_worker.core.plan import Admission, StepPlan, TransferSpec
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.errors import ExecutorError
from pdcluster_worker.executor.commands import Activate, Command, DropSlots, LayerWritten
from pdcluster_worker.executor.simulated_runner import SimulatedRunner
from pdcluster_worker.executor.slots import Columns
from pdcluster_worker.executor.steps import End, Step, StepLoop, WorkQueue, count_tokens
from pdcluster_worker.ipc.messages import FromExecutor, StepReport

CONFIG = ExecutorConfig(
    model_path=Path("/nonexistent"),
    model_name="m",
    engine=EngineConfig(runner=RunnerKind.SIMULATED, block_size=16, kv_blocks=256),
    kv_protocol=KVProtocol.IPC,
    gpu_count=0,
    rank=3,
    world_size=4,
    plan_socket="",
    report_socket="",
    instance_id="i",
)


class Loop:
    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.messages: list[FromExecutor] = []
        runner = SimulatedRunner(CONFIG, lambda fraction: None)
        self.layers = runner.layout.layers
        self.loop = StepLoop(runner, CONFIG.rank, self.commands.append, self.messages.append)

    def run(self, *work: StepPlan | TransferSpec | End) -> list[StepReport]:
        items = WorkQueue()
        for item in (*work, End()):
            items.put(Step(item, 0.0) if isinstance(item, StepPlan) else item)
        self.loop.run(items)
        return [step for message in self.messages for step in message.steps]


def admit(slot: int, length: int) -> Admission:
    tokens = np.arange(length, dtype="<u4").tobytes()
    return Admission(slot, bytes(16), 1, tokens, length, SamplingParams(), tuple(range(4 * slot, 4 * slot + 4)))


def spec(slot: int) -> TransferSpec:
    return TransferSpec(9, slot, "peer", 0, (0, 1), (0, 1), 32, 0, 1.0)


def test_plans_run_in_order_and_each_is_reported() -> None:
    loop = Loop()
    steps = loop.run(
        StepPlan(1, admissions=(admit(0, 20),), slots=(0,), starts=(0,), counts=(20,), samples=(True,)),
        StepPlan(2, slots=(0,), starts=(20,), counts=(1,), samples=(True,)),
        StepPlan(3, drop_slots=(0,)),
    )
    assert [(step.plan_id, step.slots, step.prefill_tokens, step.decode_tokens) for step in steps] == [
        (1, [0], 20, 0),
        (2, [0], 0, 1),
        (3, [], 0, 0),
    ]
    assert {message.rank for message in loop.messages} == {3}
    assert loop.commands == [DropSlots((0,))]


def test_the_sender_hears_of_the_slots_that_it_sends() -> None:
    loop = Loop()
    loop.run(
        StepPlan(
            1,
            admissions=(admit(0, 32), admit(1, 32)),
            transfers=(spec(1),),
            slots=(0, 1),
            starts=(0, 0),
            counts=(16, 20),
            samples=(False, False),
        ),
        spec(1),
        spec(-1),
        StepPlan(2, drop_slots=(1,), slots=(0,), starts=(16,), counts=(16,), samples=(True,)),
    )
    layers = [LayerWritten(layer, {1: 20}) for layer in range(loop.layers)]
    assert loop.commands == [Activate(9, 0), *layers, Activate(9, 20), DropSlots((1,))]


def test_the_end_of_another_thread_ends_the_loop() -> None:
    with pytest.raises(ExecutorError, match="sender"):
        Loop().run(End("the sender thread failed"))


def test_a_one_token_chunk_without_sampling_is_prefill() -> None:
    plan = StepPlan(1, slots=(0, 1, 2), starts=(5, 5, 0), counts=(1, 1, 1), samples=(False, True, True))
    assert count_tokens(Columns.of(plan)) == (2, 1)
