"""What the parts of one core share. Made by the facade; written by the engine loop thread only, through `core/`."""

from pdcluster_worker.core.blocks import BlockPool
from pdcluster_worker.core.config import CoreConfig
from pdcluster_worker.core.effects import Observation, Outbox, RouterOut, ToDecode, ToPrefill
from pdcluster_worker.core.ids import PeerId, RequestId, StreamId
from pdcluster_worker.core.job import Job
from pdcluster_worker.core.timers import Timers


class Context:
    """`jobs` has one entry per request id: the latest epoch is the only one that lives."""

    def __init__(self, config: CoreConfig) -> None:
        self.config = config
        self.pool = BlockPool(config.num_blocks, config.prefix_caching)
        self.outbox = Outbox()
        self.jobs: dict[RequestId, Job] = {}
        self.job_timers: Timers[Job] = Timers()
        self.attach_timers: Timers[Job] = Timers()
        """For requests that no router listens to."""
        self.draining = False
        self.broken = ""
        """Why nothing can run here any more; empty while the executor lives."""

    def router(self, stream: StreamId) -> RouterOut:
        out = self.outbox.routers.get(stream)
        if out is None:
            out = self.outbox.routers[stream] = RouterOut()
        return out

    def decode(self, peer: PeerId) -> ToDecode:
        out = self.outbox.decodes.get(peer)
        if out is None:
            out = self.outbox.decodes[peer] = ToDecode()
        return out

    def prefill(self, peer: PeerId) -> ToPrefill:
        out = self.outbox.prefills.get(peer)
        if out is None:
            out = self.outbox.prefills[peer] = ToPrefill()
        return out

    def observe(self, name: str, value: float, *labels: str) -> None:
        self.outbox.observations.append(Observation(name, value, labels))

    def set_timer(self, job: Job, when: float) -> None:
        """Wake for the job then, or at its deadline if that is earlier."""
        self.job_timers.set(job, min(when, job.request.deadline))
