"""What NIXL does without pdcluster: one prepared write of all blocks between two processes, posted again and again.

The baseline of `make bench-transfer`. Run as a program it is the receiving process: it registers memory, prints how
to reach it as one line of JSON, and ends when its stdin closes.
"""

import json
import mmap
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pdcluster_worker.kv.protocol import KVProtocol
from pdcluster_worker.kv.registry import ucx_environment

PROGRESS_MICROSECONDS = 10_000
TIMEOUT = 20.0
SENDER = "raw-sender"
RECEIVER = "raw-receiver"


@dataclass(frozen=True, slots=True)
class Blocks:
    """Which blocks of `size` bytes go where; indices into one region at each end."""

    size: int
    local: tuple[int, ...]
    remote: tuple[int, ...]

    @property
    def total_bytes(self) -> int:
        return self.size * len(self.local)


class Agent:
    """A NIXL agent with one region of host memory, by the bindings alone. Memory is of the kind that executors use."""

    def __init__(self, name: str, size: int) -> None:
        import nixl_cu12._bindings as nixl

        self.nixl = nixl
        config = nixl.nixlAgentConfig()
        config.useProgThread = True
        config.useListenThread = False
        config.pthrDelay = PROGRESS_MICROSECONDS
        self.agent = nixl.nixlAgent(name, config)
        self.backend = self.agent.createBackend("UCX", {})
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        self.memory: npt.NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8)
        self.memory[:] = 1
        self.address = self.memory.ctypes.data
        regions = nixl.nixlRegDList(nixl.DRAM_SEG, [(self.address, size, 0, "")])
        self.agent.registerMem(regions, [self.backend])

    def rows(self, base: int, blocks: tuple[int, ...], size: int) -> Any:
        rows = np.zeros((len(blocks), 3), dtype=np.uint64)
        rows[:, 0] = base + np.array(blocks, dtype=np.uint64) * np.uint64(size)
        rows[:, 1] = size
        return self.nixl.nixlXferDList(self.nixl.DRAM_SEG, rows)


class Receiver:
    """The other process. `address` and `metadata` say how to write into it."""

    def __init__(self, size: int, environment: dict[str, str]) -> None:
        command = [sys.executable, __file__, str(size)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self._child.stdout is not None
        line = json.loads(self._child.stdout.readline())
        self.address = int(line["address"])
        self.metadata = bytes.fromhex(line["metadata"])

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def raw_seconds(blocks: Blocks, region_blocks: int, protocol: KVProtocol, repeats: int) -> list[float]:
    """From post to completion, of each repetition. UCX's environment must be that of `protocol` already."""
    size = region_blocks * blocks.size
    with Receiver(size, dict(os.environ) | ucx_environment(protocol, on_device=False, host="127.0.0.1")) as receiver:
        sender = Agent(SENDER, size)
        name = sender.agent.loadRemoteMD(receiver.metadata).decode()
        request = sender.agent.createXferReq(
            sender.nixl.NIXL_WRITE,
            sender.rows(sender.address, blocks.local, blocks.size),
            sender.rows(receiver.address, blocks.remote, blocks.size),
            name,
            "",
            [sender.backend],
        )
        times = [_one(sender, request) for _ in range(repeats)]
        sender.agent.releaseXferReq(request)
        sender.agent.invalidateRemoteMD(name)
        return times


def _one(sender: Agent, request: int) -> float:
    nixl = sender.nixl
    start = time.perf_counter()
    status = sender.agent.postXferReq(request, "")
    while status == nixl.NIXL_IN_PROG and time.perf_counter() - start < TIMEOUT:
        status = sender.agent.getXferStatus(request)
    assert status == nixl.NIXL_SUCCESS, status
    return time.perf_counter() - start


def main() -> None:
    agent = Agent(RECEIVER, int(sys.argv[1]))
    print(json.dumps({"address": agent.address, "metadata": bytes(agent.agent.getLocalMD()).hex()}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
