"""Real executor processes with the simulated runner, driven by hand-made plans."""

import os
import queue
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pdcluster_worker.config import EngineConfig, ExecutorConfig, RunnerKind
from pdcluster_worker.core.plan import Admission, StepPlan, TransferSpec
from pdcluster_worker.core.request import SamplingParams
from pdcluster_worker.errors import ExecutorError
from pdcluster_worker.ipc.client import ExecutorProcess
from pdcluster_worker.ipc.messages import ExecutorReady, FromExecutor, PeerInfo, StepReport, ToExecutor, TransferReport
from pdcluster_worker.ipc.runtime import make_socket_folder, socket_addresses
from pdcluster_worker.kv.protocol import KVProtocol

DEADLINE = 30.0
BLOCK_SIZE = 16
Report = TypeVar("Report")


class SimulatedExecutor:
    """One executor process. Its messages are read by the test's thread."""

    def __init__(self, protocol: KVProtocol, profile: str = '{"verification": "full"}') -> None:
        self.folder = make_socket_folder()
        (self.folder / "profile.json").write_text(profile)
        plan, report = socket_addresses(self.folder, 0)
        self.config = ExecutorConfig(
            model_path=Path(tempfile.gettempdir()) / "no-such-model",
            model_name="simulated",
            engine=EngineConfig(
                block_size=BLOCK_SIZE,
                kv_blocks=64,
                max_model_length=512,
                runner=RunnerKind.SIMULATED,
                profile=self.folder / "profile.json",
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
        self.steps: dict[int, StepReport] = {}
        self.transfers: dict[int, TransferReport] = {}
        self.fences: set[int] = set()
        self.peers: set[str] = set()
        self.failed_peers: dict[str, str] = {}
        self.loading: list[float] = []
        self.fatal = ""
        self.exits: list[str] = []
        self._ready: ExecutorReady | None = None
        self._exited = threading.Event()
        self._messages: queue.SimpleQueue[FromExecutor] = queue.SimpleQueue()
        self.process = ExecutorProcess.spawn(self.config, self._messages.put, self._on_exit)

    @property
    def ready(self) -> ExecutorReady:
        self.wait(lambda: self._ready is not None)
        assert self._ready is not None
        return self._ready

    def send(self, message: ToExecutor) -> None:
        self.process.send(message)

    def add_peer(self, name: str, peer: "SimulatedExecutor") -> None:
        self.send(ToExecutor(add_peers=(PeerInfo(name, peer.ready.metadata),)))
        self.wait(lambda: name in self.peers)

    def step(self, plan_id: int) -> StepReport:
        self.wait(lambda: plan_id in self.steps)
        return self.steps[plan_id]

    def transfer(self, transfer_id: int) -> TransferReport:
        self.wait(lambda: transfer_id in self.transfers)
        return self.transfers[transfer_id]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Reads messages until the condition holds. Fails when the executor ends or the deadline passes."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            try:
                self._take(self._messages.get(timeout=max(0.0, min(0.5, deadline - time.monotonic()))))
            except queue.Empty:
                assert not self.exits, self.exits
                assert time.monotonic() < deadline, "no such message within the deadline"

    def wait_exit(self) -> str:
        """The reason that the client gave; reads what was left to read."""
        assert self._exited.wait(DEADLINE)
        while not self._messages.empty():
            self._take(self._messages.get_nowait())
        return self.exits[0]

    def read_memory(self, layer: int) -> npt.NDArray[np.uint8]:
        """A layer's region as it is in the process now: [2, blocks, block bytes]."""
        region, layout = self.ready.metadata.regions[layer], self.ready.metadata
        with open(f"/proc/{self.process.pid}/mem", "rb", buffering=0) as memory:
            data = os.pread(memory.fileno(), region.length, region.address)
        return np.frombuffer(data, dtype=np.uint8).reshape(2, layout.num_blocks, layout.block_bytes)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def close(self) -> None:
        if not self.exits:
            self.signal(signal.SIGCONT)
        try:
            self.process.stop(5.0)
        except ExecutorError:
            self.process.kill()
        shutil.rmtree(self.folder)

    def _on_exit(self, reason: str) -> None:
        self.exits.append(reason)
        self._exited.set()

    def _take(self, message: FromExecutor) -> None:
        self._ready = message.ready or self._ready
        if message.loading >= 0:
            self.loading.append(message.loading)
        for step in message.steps:
            assert step.plan_id not in self.steps
            self.steps[step.plan_id] = step
        for transfer in message.transfers:
            assert transfer.transfer_id not in self.transfers, "a transfer was reported twice"
            self.transfers[transfer.transfer_id] = transfer
        self.fences.update(message.fences)
        self.peers.update(message.peers_added)
        self.failed_peers.update(message.peers_failed)
        self.fatal = message.fatal or self.fatal


def admission(
    slot: int, tokens: Sequence[int], blocks: Sequence[int], prompt_length: int | None = None, seed: int = 1
) -> Admission:
    return Admission(
        slot=slot,
        request_id=bytes(16),
        epoch=1,
        tokens=np.array(tokens, dtype="<u4").tobytes(),
        prompt_length=prompt_length or len(tokens),
        sampling=SamplingParams(seed=seed),
        block_ids=tuple(blocks),
    )


def transfer(
    transfer_id: int,
    slot: int,
    local: Sequence[int],
    remote: Sequence[int],
    tokens: int,
    first_block: int = 0,
    computed: int = 0,
    lifetime: float = 20.0,
    peer: str = "decode",
) -> TransferSpec:
    """`local` and `remote` are of the whole prompt; those before `first_block` and behind the prompt are left out."""
    end = -(-tokens // BLOCK_SIZE)
    return TransferSpec(
        transfer_id=transfer_id,
        slot=slot,
        peer=peer,
        first_block=first_block,
        local_blocks=tuple(local[first_block:end]),
        remote_blocks=tuple(remote[first_block:end]),
        tokens=tokens,
        computed_tokens=computed,
        lifetime=lifetime,
    )


def plan(
    plan_id: int,
    entries: Sequence[tuple[int, int, int, bool]] = (),
    admissions: Sequence[Admission] = (),
    transfers: Sequence[TransferSpec] = (),
    drop: Sequence[int] = (),
    appended: Sequence[tuple[int, tuple[int, ...]]] = (),
) -> StepPlan:
    """Entries are (slot, start, count, sample)."""
    return StepPlan(
        plan_id=plan_id,
        drop_slots=tuple(drop),
        admissions=tuple(admissions),
        appended_blocks=tuple(appended),
        transfers=tuple(transfers),
        slots=tuple(entry[0] for entry in entries),
        starts=tuple(entry[1] for entry in entries),
        counts=tuple(entry[2] for entry in entries),
        samples=tuple(entry[3] for entry in entries),
    )
