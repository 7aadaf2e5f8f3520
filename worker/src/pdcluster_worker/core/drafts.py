"""A step while it is put together, and a step that is out."""

from collections.abc import Sequence

from pdcluster_worker.core.ids import PlanId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.plan import Admission, StepPlan, TransferSpec


class IssuedPlan:
    """What the scheduler remembers of a plan until its result comes. `sampling` is in batch order."""

    __slots__ = ("decodes", "jobs", "plan_id", "prefill_tokens", "sampling")

    def __init__(self, draft: "Draft") -> None:
        self.plan_id = draft.plan_id
        self.jobs = draft.jobs
        self.sampling = draft.sampling
        self.prefill_tokens = draft.prefill_tokens
        self.decodes = draft.decodes

    @property
    def phase(self) -> str:
        if not self.prefill_tokens:
            return "decode"
        return "mixed" if self.decodes else "prefill"


class Draft:
    """Columns of the batch, growing. `budget` is the tokens that still fit."""

    __slots__ = (
        "admissions",
        "appended",
        "budget",
        "counts",
        "decodes",
        "indexed",
        "jobs",
        "plan_id",
        "prefill_tokens",
        "samples",
        "sampling",
        "slots",
        "starts",
        "transfers",
    )

    def __init__(self, plan_id: PlanId, budget: int) -> None:
        self.plan_id = plan_id
        self.budget = budget
        self.jobs: list[Job] = []
        self.sampling: list[Job] = []
        self.slots: list[int] = []
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.samples: list[bool] = []
        self.admissions: list[Admission] = []
        self.appended: list[tuple[int, tuple[int, ...]]] = []
        self.transfers: list[TransferSpec] = []
        self.indexed: set[int] = set()
        """Blocks that this plan computes and that others may share from now on."""
        self.prefill_tokens = 0
        self.decodes = 0

    def computed_before(self, blocks: Sequence[int]) -> int:
        """How many of the first of these blocks hold their KV before this plan runs."""
        return next((count for count, block in enumerate(blocks) if block in self.indexed), len(blocks))

    def plan(self, dropped: list[int]) -> StepPlan:
        return StepPlan(
            plan_id=self.plan_id,
            drop_slots=tuple(dropped),
            admissions=tuple(self.admissions),
            appended_blocks=tuple(self.appended),
            transfers=tuple(self.transfers),
            slots=tuple(self.slots),
            starts=tuple(self.starts),
            counts=tuple(self.counts),
            samples=tuple(self.samples),
        )
