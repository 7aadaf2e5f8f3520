"""The scheduler of a mixed worker under small pools: preemption, prefix hits, aborts, late results, odd budgets.

The fake executor checks the KV of every position before it is used, the worker every token that is streamed.
"""

from core_executor import sampled_token
from core_requests import expected_tokens, make_config, make_request
from core_worker import STREAM, LoneWorker
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pdcluster_worker.core import events
from pdcluster_worker.core.effects import FailedNote, FinishedNote
from pdcluster_worker.core.request import Request
from pdcluster_worker.core.wire import FailureCode


class SchedulerMachine(RuleBasedStateMachine):
    @initialize(
        blocks=st.integers(7, 16),
        budget=st.sampled_from([1, 3, 8, 24]),
        slots=st.sampled_from([1, 3, 8]),
        plans=st.integers(1, 3),
        caching=st.booleans(),
    )
    def make(self, blocks: int, budget: int, slots: int, plans: int, caching: bool) -> None:
        self.worker = LoneWorker(
            make_config(
                num_blocks=blocks,
                max_model_length=32,
                max_batch_tokens=budget,
                max_running_requests=slots,
                plans_in_flight=plans,
                prefix_caching=caching,
            )
        )
        self.requests: dict[int, Request] = {}
        self.aborted: set[int] = set()

    @rule(
        burst=st.lists(
            st.tuples(st.sampled_from([0, 4, 8, 12]), st.integers(0, 9), st.integers(1, 20)), min_size=1, max_size=8
        ),
        stop=st.booleans(),
        alone=st.booleans(),
        seconds=st.sampled_from([5.0, 600.0]),
    )
    def submit(self, burst: list[tuple[int, int, int]], stop: bool, alone: bool, seconds: float) -> None:
        """Prompts of whole shared blocks and some tokens of their own."""
        for shared, own, max_tokens in burst:
            number = len(self.requests) + 1
            request = make_request(
                number,
                ([1] * shared + [number] * own) or [2],
                max_tokens=max_tokens,
                stop_token_ids=(sampled_token(number, max_tokens // 2),) if stop else (),
                alone=alone and number % 4 == 0,
                deadline=self.worker.now + seconds,
            )
            self.requests[number] = request
            self.worker.submit(request, number)

    @rule(count=st.integers(1, 12))
    def steps(self, count: int) -> None:
        for _ in range(count):
            if self.worker.plans:
                self.worker.step()

    @rule(which=st.integers(0, 100))
    def abort(self, which: int) -> None:
        if self.requests:
            number = 1 + which % len(self.requests)
            self.aborted.add(number)
            self.worker.handle(events.Aborted(stream=STREAM, key=self.requests[number].key))

    @rule(seconds=st.floats(0.1, 3))
    def pass_time(self, seconds: float) -> None:
        self.worker.pass_time(seconds)

    @invariant()
    def books_balance(self) -> None:
        self.worker.core.check_integrity()
        budget = self.worker.config.max_batch_tokens
        assert all(size <= budget for size in self.worker.executor.batch_sizes)
        assert len(self.worker.plans) <= self.worker.config.plans_in_flight
        snapshot = self.worker.core.snapshot()
        assert snapshot.queued_tokens >= 0
        assert sum(snapshot.blocks.values()) == self.worker.config.num_blocks

    def teardown(self) -> None:
        if not hasattr(self, "worker"):
            return
        self.worker.run(5000)
        for number, request in self.requests.items():
            note = self.worker.notes[number]
            tokens = self.worker.tokens.get(number, [])
            expected = expected_tokens(request)[: self.worker.config.max_model_length - request.prompt_length]
            assert tokens == expected[: len(tokens)]
            if isinstance(note, FinishedNote):
                assert tokens == expected
                assert note.output_tokens == len(tokens)
            else:
                assert isinstance(note, FailedNote)
                allowed = {FailureCode.DEADLINE, FailureCode.INVALID_ARGUMENT}
                assert note.code in allowed or (note.code is FailureCode.ABORTED and number in self.aborted)
        self.worker.check_empty()
        assert self.worker.core.snapshot().queued_tokens == 0


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=15, deadline=None)
