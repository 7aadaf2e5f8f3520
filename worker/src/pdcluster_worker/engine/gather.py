"""Reports of all ranks become one event each. Owned by the engine loop thread.

With one rank everything passes straight through; with several an event is complete when the last rank has spoken.
Tokens are rank 0's: all ranks sample the same.
"""

from concurrent.futures import Future

from pdcluster_worker.core.events import Event, FenceDrained, SampledTokens, StepDone, TransferFinished
from pdcluster_worker.core.ids import PeerId, PlanId, TransferId
from pdcluster_worker.errors import TransportError
from pdcluster_worker.ipc.messages import FromExecutor, StepReport, TransferReport


class RankGather:
    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._steps: dict[int, dict[int, StepReport]] = {}
        self._fences: dict[int, set[int]] = {}
        self._peers: dict[PeerId, tuple[set[int], list[Future[None]]]] = {}

    def events(self, message: FromExecutor) -> list[Event]:
        """What is complete with this message, in the order to be handled: transfers, steps, fences."""
        rank = message.rank
        for peer in message.peers_added:
            self._peer_added(PeerId(peer), rank)
        for peer, reason in message.peers_failed:
            self._peer_failed(PeerId(peer), reason)
        events: list[Event] = [_transfer(report, rank) for report in message.transfers]
        for step in message.steps:
            done = self._step(step, rank)
            if done is not None:
                events.append(done)
        for fence in message.fences:
            if self._all_ranks(self._fences.setdefault(fence, set()), rank):
                del self._fences[fence]
                events.append(FenceDrained(fence=fence))
        return events

    def expect_peer(self, peer: PeerId, added: "Future[None]") -> None:
        self._peers.setdefault(peer, (set(), []))[1].append(added)

    def executor_lost(self, reason: str) -> None:
        for peer in list(self._peers):
            self._peer_failed(peer, reason)

    def _step(self, report: StepReport, rank: int) -> StepDone | None:
        reports = self._steps.setdefault(report.plan_id, {})
        reports[rank] = report
        if len(reports) < self._ranks:
            return None
        del self._steps[report.plan_id]
        first = reports[0]
        sampled = SampledTokens(slots=first.slots, tokens=first.tokens, logprobs=first.logprobs)
        seconds = max(report.seconds for report in reports.values())
        return StepDone(plan=PlanId(report.plan_id), sampled=sampled, seconds=seconds)

    def _all_ranks(self, heard: set[int], rank: int) -> bool:
        heard.add(rank)
        return len(heard) == self._ranks

    def _peer_added(self, peer: PeerId, rank: int) -> None:
        heard, waiting = self._peers.get(peer, (set(), []))
        if waiting and self._all_ranks(heard, rank):
            del self._peers[peer]
            for added in waiting:
                if added.set_running_or_notify_cancel():
                    added.set_result(None)

    def _peer_failed(self, peer: PeerId, reason: str) -> None:
        _heard, waiting = self._peers.pop(peer, (set(), []))
        for added in waiting:
            if added.set_running_or_notify_cancel():
                added.set_exception(TransportError(reason))


def _transfer(report: TransferReport, rank: int) -> TransferFinished:
    return TransferFinished(
        transfer=TransferId(report.transfer_id),
        rank=rank,
        ok=report.ok,
        bytes=report.bytes,
        seconds=report.seconds,
        reason=report.reason,
        write_failed=report.write_failed,
    )
