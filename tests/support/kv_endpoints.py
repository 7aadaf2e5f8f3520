"""One end of a KV transport as tests see it: in this process (in-process fake) or in a process of its own (NIXL).

Memory is a file mapped by both the test and the endpoint, so that a test can look at it while the endpoint is
stopped or dead.
"""

import mmap
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import TransportError
from pdcluster_worker.kv.inproc import Fabric, InProcessTransport
from pdcluster_worker.kv.protocol import KVProtocol
from pdcluster_worker.kv.registry import make_transport
from pdcluster_worker.kv.transport import KVTransport, WriteHandle, Writes, WriteState

DEADLINE = 20.0
Memory = npt.NDArray[np.uint8]


class Call(msgspec.Struct):
    """A request to an endpoint's process; unused fields stay empty."""

    name: str
    peer: str = ""
    handle: int = 0
    timeout: float = 0.0
    metadata: RankMetadata | None = None
    local: list[int] = []
    remote: list[int] = []
    length: list[int] = []
    repeat: int = 1


class Answer(msgspec.Struct):
    error: str = ""
    handle: int = 0
    state: str = ""
    drained: bool = False
    metadata: RankMetadata | None = None


class Endpoint(Protocol):
    memory: Memory
    metadata: RankMetadata

    def call(self, call: Call) -> Answer: ...


def writes_between(
    sender: Endpoint, receiver: Endpoint, chunks: list[int], places: list[int], size: int, peer: str = "receiver"
) -> Call:
    """Chunk i of the sender's memory goes to place i of the receiver's; both count in `size` bytes."""
    source, target = sender.metadata.regions[0].address, receiver.metadata.regions[0].address
    return Call(
        "post",
        peer=peer,
        local=[source + chunk * size for chunk in chunks],
        remote=[target + place * size for place in places],
        length=[size] * len(chunks),
    )


def map_file(path: Path, size: int) -> Memory:
    with path.open("a+b") as file:
        file.truncate(size)
        return np.frombuffer(mmap.mmap(file.fileno(), size), dtype=np.uint8)


def serve(transport: KVTransport, memory: Memory, call: Call) -> Answer:
    """Carries one call out."""
    handle = WriteHandle(call.handle)
    try:
        match call.name:
            case "add":
                assert call.metadata is not None
                transport.add_peer(call.peer, call.metadata)
            case "remove":
                transport.remove_peer(call.peer)
            case "post":
                columns = (np.array(part, dtype=np.uint64) for part in (call.local, call.remote, call.length))
                writes = Writes(*columns)
                for _ in range(call.repeat):
                    handle = transport.post(call.peer, writes)
                return Answer(handle=handle)
            case "poll":
                return Answer(state=transport.poll(handle).value)
            case "wait":
                return Answer(state=wait_final(transport, handle, call.timeout).value)
            case "release":
                transport.release(handle)
            case "drain":
                return Answer(drained=transport.drain(call.timeout))
    except TransportError as error:
        return Answer(error=str(error))
    return Answer()


def wait_final(transport: KVTransport, handle: WriteHandle, timeout: float) -> WriteState:
    """The state after at most `timeout` seconds. Transports have no event to wait for."""
    deadline = time.monotonic() + timeout
    while (state := transport.poll(handle)) is WriteState.PENDING and time.monotonic() < deadline:
        os.sched_yield()
    return state


def describe(transport: KVTransport, memory: Memory) -> RankMetadata:
    region = Region(memory.ctypes.data, memory.size, 0)
    transport.register([region])
    return RankMetadata(0, transport.agent_name, transport.metadata(), (region,), 1, memory.size // 2)


class LocalEndpoint:
    """The in-process fake."""

    def __init__(self, folder: Path, size: int, fabric: Fabric) -> None:
        name = uuid.uuid4().hex
        self.memory = map_file(folder / name, size)
        self._transport = InProcessTransport(name, fabric)
        self.metadata = describe(self._transport, self.memory)

    def call(self, call: Call) -> Answer:
        return serve(self._transport, self.memory, call)

    def close(self) -> None:
        self._transport.close()

    def kill(self) -> None:
        self._transport.close()


class ProcessEndpoint:
    """NIXL in a process of its own."""

    def __init__(self, folder: Path, size: int, protocol: KVProtocol) -> None:
        name = uuid.uuid4().hex
        self.memory = map_file(folder / name, size)
        command = [sys.executable, __file__, protocol.value, str(folder / name), str(size)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.metadata = self._required(self._read())

    def call(self, call: Call) -> Answer:
        self.send(call)
        return self._read()

    def send(self, call: Call) -> None:
        """Does not wait for the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(call) + b"\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.close()
            self.process.wait(DEADLINE)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self.kill()
        self.process.stdout.close()

    def _read(self) -> Answer:
        assert self.process.stdout is not None
        return msgspec.json.decode(self.process.stdout.readline(), type=Answer)

    def _required(self, answer: Answer) -> RankMetadata:
        assert answer.metadata is not None
        return answer.metadata


def main() -> None:
    protocol, path, size = KVProtocol(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    memory = map_file(path, size)
    transport = make_transport(protocol, path.name, on_device=False, host="127.0.0.1")
    reply(Answer(metadata=describe(transport, memory)))
    for line in sys.stdin.buffer:
        reply(serve(transport, memory, msgspec.json.decode(line, type=Call)))
    transport.close()


def reply(answer: Answer) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
