"""Transport between executors inside one process: for tests and simulations without an agent.

Agents find each other through the `Fabric` that they were made with. Writes are copied at the first poll, so that a
handle is pending for a while, as with a network.
"""

import ctypes
import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import StateError, TransportError
from pdcluster_worker.kv.transport import WriteHandle, Writes, WriteState

METADATA = b"inproc"


@dataclass(slots=True)
class Fabric:
    """The agents that live, by name. Guarded by its lock: agents may belong to different threads."""

    agents: dict[str, tuple[Region, ...]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


PROCESS_FABRIC = Fabric()


@dataclass(slots=True)
class _Write:
    agent: str
    writes: Writes
    state: WriteState = WriteState.PENDING


class InProcessTransport:
    """KVTransport by memmove. Its one writer is the thread that posts."""

    def __init__(self, agent_name: str, fabric: Fabric = PROCESS_FABRIC) -> None:
        self.agent_name = agent_name
        self._fabric = fabric
        self._regions: tuple[Region, ...] = ()
        self._peers: dict[str, str] = {}
        self._handles: dict[WriteHandle, _Write] = {}
        self._numbers = itertools.count(1)

    def register(self, regions: Sequence[Region]) -> None:
        self._regions = tuple(regions)
        with self._fabric.lock:
            self._fabric.agents[self.agent_name] = self._regions

    def metadata(self) -> bytes:
        return METADATA

    def add_peer(self, peer: str, metadata: RankMetadata) -> None:
        if peer in self._peers:
            raise TransportError(f"peer {peer} is known already")
        if metadata.agent_metadata != METADATA:
            raise TransportError(f"peer {peer} speaks another transport")
        self._peers[peer] = metadata.agent_name

    def remove_peer(self, peer: str) -> None:
        self._peers.pop(peer, None)

    def post(self, peer: str, writes: Writes) -> WriteHandle:
        agent = self._peers.get(peer)
        if agent is None:
            raise TransportError(f"peer {peer} is not known")
        if not _covered(self._regions, writes.local.tolist(), writes.length.tolist()):
            raise TransportError("a local address is outside the registered regions")
        handle = WriteHandle(next(self._numbers))
        self._handles[handle] = _Write(agent, writes)
        return handle

    def poll(self, handle: WriteHandle) -> WriteState:
        write = self._handles[handle]
        if write.state is WriteState.PENDING:
            write.state = self._copy(write)
        return write.state

    def release(self, handle: WriteHandle) -> None:
        if self._handles[handle].state is WriteState.PENDING:
            raise StateError(f"handle {handle} is pending")
        del self._handles[handle]

    def drain(self, timeout: float) -> bool:
        return True

    def close(self) -> None:
        with self._fabric.lock:
            self._fabric.agents.pop(self.agent_name, None)

    def _copy(self, write: _Write) -> WriteState:
        local, remote, length = write.writes.local.tolist(), write.writes.remote.tolist(), write.writes.length.tolist()
        with self._fabric.lock:
            regions = self._fabric.agents.get(write.agent)
            if regions is None or not _covered(regions, remote, length):
                return WriteState.FAILED
            for source, target, size in zip(local, remote, length, strict=True):
                ctypes.memmove(target, source, size)
        return WriteState.DONE


def _covered(regions: Sequence[Region], addresses: Sequence[int], lengths: Sequence[int]) -> bool:
    """Whether each range lies inside one region."""
    return all(
        any(region.address <= start and start + size <= region.address + region.length for region in regions)
        for start, size in zip(addresses, lengths, strict=True)
    )
