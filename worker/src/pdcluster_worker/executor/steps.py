"""Runs plans in order on the main thread: slot table, runner, reports. The runner's and the table's one writer."""

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

from pdcluster_worker.core.plan import StepPlan, TransferSpec
from pdcluster_worker.errors import ExecutorError
from pdcluster_worker.executor.commands import Activate, Command, DropSlots, LayerWritten
from pdcluster_worker.executor.runner import LayerWritten as LayerCallback
from pdcluster_worker.executor.runner import ModelRunner, Sampled
from pdcluster_worker.executor.slots import Columns, SlotTable
from pdcluster_worker.ipc.messages import FromExecutor, StepReport


@dataclass(frozen=True, slots=True)
class Step:
    """A plan, and when it came on the monotonic clock."""

    plan: StepPlan
    arrived: float


@dataclass(frozen=True, slots=True)
class End:
    """The engine asked for the end, or another thread failed (`reason`)."""

    reason: str = ""


Work = Step | TransferSpec | End
WorkQueue = queue.SimpleQueue[Work]


class StepLoop:
    def __init__(
        self,
        runner: ModelRunner,
        rank: int,
        to_sender: Callable[[Command], None],
        report: Callable[[FromExecutor], None],
    ) -> None:
        self._runner = runner
        self._rank = rank
        self._to_sender = to_sender
        self._report = report
        self._table = SlotTable(runner.layout, runner.max_model_length, runner.vocab_size)
        self._sending: set[int] = set()
        """Slots that a transfer has named: the sender hears of their progress until they are dropped."""

    def run(self, work: WorkQueue) -> None:
        """Until the end is asked for. Raises ExecutorError when another thread failed, and whatever a step raises."""
        while not isinstance(item := work.get(), End):
            if isinstance(item, Step):
                self._step(item.plan, item.arrived)
            else:
                self._activate(item)
        if item.reason:
            raise ExecutorError(item.reason)

    def _step(self, plan: StepPlan, arrived: float) -> None:
        self._table.apply(plan)
        if plan.drop_slots:
            self._sending.difference_update(plan.drop_slots)
            self._to_sender(DropSlots(plan.drop_slots))
        for spec in plan.transfers:
            self._activate(spec)
        started = time.monotonic()
        columns = Columns.of(plan)
        sampled = self._compute(plan, columns, arrived)
        slots = self._table.commit(plan, sampled.tokens, columns)
        prefill, decode = count_tokens(columns)
        report = StepReport(
            plan_id=plan.plan_id,
            slots=slots,
            tokens=sampled.tokens,
            logprobs=sampled.logprobs,
            seconds=time.monotonic() - started,
            prefill_tokens=prefill,
            decode_tokens=decode,
        )
        self._report(FromExecutor(rank=self._rank, steps=(report,)))

    def _activate(self, spec: TransferSpec) -> None:
        if spec.slot >= 0:
            self._sending.add(spec.slot)
            self._to_sender(Activate(spec.transfer_id, self._table.computed(spec.slot)))

    def _compute(self, plan: StepPlan, columns: Columns, arrived: float) -> Sampled:
        if not plan.slots:
            return Sampled([], {})
        return self._runner.execute(self._table.batch(plan, columns, arrived), self._progress(plan))

    def _progress(self, plan: StepPlan) -> LayerCallback:
        """What the runner calls per layer: tells the sender how far the slots that it sends have come."""
        if self._sending.isdisjoint(plan.slots):
            return _nobody_waits
        ends = {
            slot: start + count
            for slot, start, count in zip(plan.slots, plan.starts, plan.counts, strict=True)
            if slot in self._sending
        }
        return lambda layer: self._to_sender(LayerWritten(layer, ends))


def _nobody_waits(layer: int) -> None:
    """No transfer is under way from the slots of this step."""


def count_tokens(columns: Columns) -> tuple[int, int]:
    """(prefill, decode) tokens of the batch: an entry of one token that samples behind a context is a decode."""
    _, starts, counts, samples = columns
    decodes = (counts == 1) & (starts > 0) & samples
    return int(counts[~decodes].sum()), int(decodes.sum())
