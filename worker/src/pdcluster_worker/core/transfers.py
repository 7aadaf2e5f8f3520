"""KV transfers that are out: each pins its request's blocks until every rank's handles are final.

Written by the prefill role.
"""

from pdcluster_worker.core.context import Context
from pdcluster_worker.core.events import TransferFinished
from pdcluster_worker.core.ids import TransferId
from pdcluster_worker.core.job import HeldLease, Job
from pdcluster_worker.core.plan import TransferSpec


class Transfer:
    __slots__ = (
        "bytes",
        "cancelled",
        "job",
        "lease",
        "ok",
        "ranks_left",
        "reason",
        "seconds",
        "transfer_id",
        "write_failed",
    )

    def __init__(self, transfer_id: TransferId, job: Job, lease: HeldLease, ranks: int) -> None:
        self.transfer_id = transfer_id
        self.job = job
        self.lease = lease
        self.ranks_left = set(range(ranks))
        self.ok = True
        self.cancelled = False
        self.bytes = 0
        self.seconds = 0.0
        self.reason = ""
        self.write_failed = False


class Transfers:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._transfers: dict[TransferId, Transfer] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._transfers)

    def pinned_after_end(self) -> set[Job]:
        """Requests that have ended, but whose blocks are still read."""
        return {transfer.job for transfer in self._transfers.values() if transfer.job.ended}

    def start(self, job: Job, lease: HeldLease, now: float) -> TransferSpec | None:
        """What the executor has to do; None when the peer has everything already."""
        config = self._context.config
        tokens = job.request.num_tokens
        first, end = lease.matched_blocks, config.blocks_for(tokens)
        if first >= end:
            lease.transferred = True
            return None
        self._last_id += 1
        transfer_id = TransferId(self._last_id)
        self._transfers[transfer_id] = Transfer(transfer_id, job, lease, config.ranks)
        lease.transfer_id = transfer_id
        job.pins += 1
        return TransferSpec(
            transfer_id=transfer_id,
            slot=job.slot,
            peer=lease.peer,
            first_block=first,
            local_blocks=tuple(job.blocks[first:end]),
            remote_blocks=lease.block_ids[first:end],
            tokens=tokens,
            computed_tokens=tokens if job.kv_complete else min(job.stored, tokens),
            # The lease is renewed by heartbeats, and quarantine guards its blocks after that: so a transfer may
            # last as long as its request.
            lifetime=max(job.request.deadline - now, 0.0),
        )

    def cancel(self, lease: HeldLease) -> bool:
        """Post no more. False: nothing is outstanding on this lease."""
        transfer = self._transfers.get(TransferId(lease.transfer_id))
        if transfer is None:
            return False
        if not transfer.cancelled:
            transfer.cancelled = True
            self._context.outbox.cancel_transfers.append(transfer.transfer_id)
        return True

    def finished(self, event: TransferFinished) -> Transfer | None:
        """Returns the transfer when the last rank is done; its pin is gone then."""
        transfer = self._transfers.get(event.transfer)
        if transfer is None or event.rank not in transfer.ranks_left:
            return None
        transfer.ranks_left.remove(event.rank)
        transfer.ok = transfer.ok and event.ok
        transfer.bytes += event.bytes
        transfer.seconds = max(transfer.seconds, event.seconds)
        transfer.reason = transfer.reason or event.reason
        transfer.write_failed = transfer.write_failed or event.write_failed
        if transfer.ranks_left:
            return None
        del self._transfers[event.transfer]
        transfer.job.pins -= 1
        return transfer

    def executor_gone(self) -> list[Job]:
        """Nothing will finish any more; returns the requests whose blocks were pinned."""
        jobs = [transfer.job for transfer in self._transfers.values()]
        for job in jobs:
            job.pins = 0
        self._transfers.clear()
        return jobs
