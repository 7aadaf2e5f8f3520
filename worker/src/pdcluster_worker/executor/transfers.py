"""One transfer of a prompt's KV to a peer: what may be posted when, and when it is over. Pure; the sender owns it.

SENDING --(everything posted, all handles done)--> DONE
   |
   +--(cancelled, lifetime over, a write failed, slot or peer gone)--> CLOSING --(no handle pending)--> DONE
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.errors import StateError
from pdcluster_worker.ipc.messages import TransferReport
from pdcluster_worker.kv.transport import WriteHandle


class TransferState(enum.Enum):
    """CLOSING: nothing more is posted, but blocks on both sides stay pinned by pending handles."""

    SENDING = "sending"
    CLOSING = "closing"
    DONE = "done"


TRANSITIONS = {
    TransferState.SENDING: frozenset({TransferState.CLOSING, TransferState.DONE}),
    TransferState.CLOSING: frozenset({TransferState.DONE}),
    TransferState.DONE: frozenset[TransferState](),
}


@dataclass(frozen=True, slots=True)
class Span:
    """Blocks [begin, end) of the spec's block lists, in each of `layers`."""

    layers: tuple[int, ...]
    begin: int
    end: int


@dataclass(slots=True)
class Transfer:
    """`deadline` and times are monotonic seconds. `computed` and `posted` are per layer, in tokens and in blocks."""

    spec: TransferSpec
    deadline: float
    block_size: int
    computed: list[int]
    posted: list[int]
    active: bool = False
    """False until the step thread reaches the plan that the transfer belongs to."""
    state: TransferState = TransferState.SENDING
    handles: dict[WriteHandle, int] = field(default_factory=dict)
    """Pending handles with their bytes."""
    written: int = 0
    started: float | None = None
    reason: str = ""
    write_failed: bool = False

    @classmethod
    def begin(cls, spec: TransferSpec, deadline: float, block_size: int, layers: int) -> "Transfer":
        return cls(spec, deadline, block_size, computed=[0] * layers, posted=[0] * layers)

    def activate(self, computed: int) -> None:
        """The slot's KV is there up to `computed` tokens, in every layer."""
        self.active = True
        for layer in range(len(self.computed)):
            self.layer_written(layer, max(computed, self.spec.computed_tokens))

    def layer_written(self, layer: int, end: int) -> None:
        self.computed[layer] = max(self.computed[layer], end)

    def due(self) -> list[Span]:
        """What can be posted now; call `mark_posted` for each."""
        if not self.active or self.state is not TransferState.SENDING:
            return []
        spans: dict[tuple[int, int], list[int]] = {}
        for layer, computed in enumerate(self.computed):
            end = ready_blocks(self.spec, self.block_size, computed)
            if end > self.posted[layer]:
                spans.setdefault((self.posted[layer], end), []).append(layer)
        return [Span(tuple(layers), begin, end) for (begin, end), layers in spans.items()]

    def mark_posted(self, span: Span, handle: WriteHandle, size: int, now: float) -> None:
        for layer in span.layers:
            self.posted[layer] = span.end
        self.handles[handle] = size
        self.started = now if self.started is None else self.started

    def complete(self) -> bool:
        """Whether all KV of the slot that it waits for has been computed."""
        return all(computed >= self.spec.tokens for computed in self.computed)

    def handle_done(self, handle: WriteHandle) -> None:
        self.written += self.handles.pop(handle)

    def handle_failed(self, handle: WriteHandle) -> None:
        del self.handles[handle]
        self.write_failed = True
        self.fail("a write failed")

    def fail(self, reason: str) -> None:
        """Posts nothing more. The first reason stands."""
        if self.state is TransferState.SENDING:
            self._move(TransferState.CLOSING)
            self.reason = reason

    def finish(self, now: float) -> TransferReport | None:
        """The one report, once nothing is pending and nothing is left to do."""
        if self.handles or (self.state is TransferState.SENDING and not (self.active and self._all_posted())):
            return None
        ok = self.state is TransferState.SENDING
        self._move(TransferState.DONE)
        seconds = 0.0 if self.started is None else now - self.started
        return TransferReport(self.spec.transfer_id, ok, self.written, seconds, self.reason, self.write_failed)

    def _all_posted(self) -> bool:
        blocks = len(self.spec.local_blocks)
        return all(posted == blocks for posted in self.posted)

    def _move(self, state: TransferState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise StateError(f"transfer {self.spec.transfer_id} cannot go from {self.state.value} to {state.value}")
        self.state = state


def ready_blocks(spec: TransferSpec, block_size: int, computed: int) -> int:
    """How many leading entries of the spec's blocks may be sent once `computed` tokens have KV in a layer.

    A partly filled block goes only with the end of the prompt: a block is written once.
    """
    if computed >= spec.tokens:
        return len(spec.local_blocks)
    return max(0, min(len(spec.local_blocks), computed // block_size - spec.first_block))


def find_fault(spec: TransferSpec, block_size: int, local_blocks: int, remote_blocks: int) -> str:
    """Why the transfer cannot be carried out, or nothing. Block counts are those of the two pools."""
    wanted = -(-spec.tokens // block_size) - spec.first_block
    if len(spec.local_blocks) != wanted or len(spec.remote_blocks) != wanted:
        lengths = f"{len(spec.local_blocks)} local and {len(spec.remote_blocks)} remote blocks"
        return f"{lengths} for {spec.tokens} tokens from block {spec.first_block} on"
    if spec.slot < 0 and spec.computed_tokens < spec.tokens:
        return f"no slot to compute tokens {spec.computed_tokens} to {spec.tokens}"
    if not _inside(spec.local_blocks, local_blocks):
        return f"a local block is outside 0 to {local_blocks - 1}"
    if not _inside(spec.remote_blocks, remote_blocks):
        return f"a remote block is outside 0 to {remote_blocks - 1}"
    return ""


def _inside(blocks: Sequence[int], count: int) -> bool:
    return not blocks or (min(blocks) >= 0 and max(blocks) < count)
