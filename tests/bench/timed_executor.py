"""One executor process with the simulated runner, driven by hand; says when each of its reports arrived."""

import json
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pdcluster_worker.config import EngineConfig, ExecutorConfig, RunnerKind
from pdcluster_worker.ipc.client import ExecutorProcess
from pdcluster_worker.ipc.messages import ExecutorReady, FromExecutor, PeerInfo, StepReport, ToExecutor, TransferReport
from pdcluster_worker.ipc.runtime import make_socket_folder, socket_addresses
from pdcluster_worker.kv.protocol import KVProtocol

TIMEOUT = 30.0
Report = TypeVar("Report")


@dataclass(frozen=True, slots=True)
class Arrived(Generic[Report]):
    """`at`: monotonic seconds in this process."""

    report: Report
    at: float


class TimedExecutor:
    """The thread that makes it sends; reports are taken in on the client's own thread."""

    def __init__(self, protocol: KVProtocol, profile: Mapping[str, object], blocks: int, block_size: int) -> None:
        self._folder = make_socket_folder()
        (self._folder / "profile.json").write_text(json.dumps(profile))
        plan, report = socket_addresses(self._folder, 0)
        config = ExecutorConfig(
            model_path=Path(tempfile.gettempdir()) / "no-such-model",
            model_name="simulated",
            engine=EngineConfig(
                block_size=block_size,
                kv_blocks=blocks,
                runner=RunnerKind.SIMULATED,
                profile=self._folder / "profile.json",
            ),
            kv_protocol=protocol,
            gpu_count=0,
            rank=0,
            world_size=1,
            plan_socket=plan,
            report_socket=report,
            instance_id=uuid.uuid4().hex,
            threads=1,
            host="127.0.0.1",
        )
        self._news = threading.Condition()
        self._steps: dict[int, Arrived[StepReport]] = {}
        self._transfers: dict[int, Arrived[TransferReport]] = {}
        self._peers: set[str] = set()
        self._ready: ExecutorReady | None = None
        self._ended = ""
        self._process = ExecutorProcess.spawn(config, self._take, self._exited)

    @property
    def ready(self) -> ExecutorReady:
        with self._news:
            self._news.wait_for(lambda: self._ready or self._ended, TIMEOUT)
            assert self._ready is not None, self._ended
            return self._ready

    def send(self, message: ToExecutor) -> None:
        self._process.send(message)

    def add_peer(self, name: str, peer: "TimedExecutor") -> None:
        self.send(ToExecutor(add_peers=(PeerInfo(name, peer.ready.metadata),)))
        with self._news:
            assert self._news.wait_for(lambda: name in self._peers, TIMEOUT), self._ended

    def step(self, plan_id: int) -> Arrived[StepReport]:
        with self._news:
            assert self._news.wait_for(lambda: plan_id in self._steps, TIMEOUT), self._ended
            return self._steps.pop(plan_id)

    def transfer(self, transfer_id: int) -> Arrived[TransferReport]:
        with self._news:
            assert self._news.wait_for(lambda: transfer_id in self._transfers, TIMEOUT), self._ended
            return self._transfers.pop(transfer_id)

    def close(self) -> None:
        self._process.stop(TIMEOUT)
        shutil.rmtree(self._folder)

    def _take(self, message: FromExecutor) -> None:
        now = time.monotonic()
        with self._news:
            self._ready = message.ready or self._ready
            self._steps.update((step.plan_id, Arrived(step, now)) for step in message.steps)
            self._transfers.update((report.transfer_id, Arrived(report, now)) for report in message.transfers)
            self._peers.update(message.peers_added)
            self._news.notify_all()

    def _exited(self, reason: str) -> None:
        with self._news:
            self._ended = reason
            self._news.notify_all()
