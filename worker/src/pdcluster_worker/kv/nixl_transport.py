"""Transport over NIXL (UCX): InfiniBand or RoCE where a NIC exists, shared memory or TCP elsewhere.

The bindings are used without NIXL's Python wrapper: that one offers pickled descriptors, a listener and handles that
free themselves at the collector's whim. Import this module only after UCX's environment is set (`registry.py`).
"""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import nixl_cu12._bindings as nixl
import numpy as np

from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import StateError, TransportError
from pdcluster_worker.kv.sockets import wait_until_read
from pdcluster_worker.kv.transport import AddressArray, WriteHandle, Writes, WriteState

PROGRESS_TIMEOUT_MICROSECONDS = 10_000
"""NIXL's progress thread sleeps in poll() for at most this long. 0, NIXL's own default, spins on a whole core."""

FENCE_PASSES = 64
_ERRORS = (RuntimeError, ValueError)
"""What the bindings raise: pybind11 exceptions derived from RuntimeError, or its conversions'."""


@dataclass(slots=True)
class _Write:
    peer: str
    request: int
    state: WriteState = WriteState.PENDING


class NixlTransport:
    """KVTransport. State is written by the sender thread; NIXL's own thread moves the bytes."""

    def __init__(self, agent_name: str, on_device: bool) -> None:
        self.agent_name = agent_name
        self._segment = nixl.VRAM_SEG if on_device else nixl.DRAM_SEG
        config = nixl.nixlAgentConfig()
        config.useProgThread = True
        config.useListenThread = False
        config.pthrDelay = PROGRESS_TIMEOUT_MICROSECONDS
        config.syncMode = nixl.NIXL_THREAD_SYNC_STRICT
        try:
            self._agent = nixl.nixlAgent(agent_name, config)
            self._backend = self._agent.createBackend("UCX", {})
        except _ERRORS as error:
            raise TransportError(f"NIXL's UCX backend cannot start: {error}") from error
        self._registered: nixl.nixlRegDList | None = None
        self._agents: dict[str, str] = {}
        self._writes: dict[WriteHandle, _Write] = {}
        self._numbers = itertools.count(1)

    def register(self, regions: Sequence[Region]) -> None:
        entries = [(region.address, region.length, region.device, "") for region in regions]
        self._registered = nixl.nixlRegDList(self._segment, entries)
        try:
            self._agent.registerMem(self._registered, [self._backend])
        except _ERRORS as error:
            raise TransportError(f"cannot register the KV memory: {error}") from error

    def metadata(self) -> bytes:
        return bytes(self._agent.getLocalMD())

    def add_peer(self, peer: str, metadata: RankMetadata) -> None:
        if peer in self._agents:
            raise TransportError(f"peer {peer} is known already")
        try:
            name = self._agent.loadRemoteMD(metadata.agent_metadata).decode()
        except _ERRORS as error:
            raise TransportError(f"the agent metadata of peer {peer} is not usable: {error}") from error
        if name != metadata.agent_name:
            self._agent.invalidateRemoteMD(name)
            raise TransportError(f"the agent metadata of peer {peer} is that of {name}, not {metadata.agent_name}")
        self._agents[peer] = name

    def remove_peer(self, peer: str) -> None:
        name = self._agents.pop(peer, None)
        if name is None:
            return
        for write in self._writes.values():
            if write.peer == peer and write.state is WriteState.PENDING:
                write.state = self._state(write)
        self._agent.invalidateRemoteMD(name)
        for write in self._writes.values():
            if write.peer == peer and write.state is WriteState.PENDING:
                write.state = WriteState.FAILED

    def post(self, peer: str, writes: Writes) -> WriteHandle:
        name = self._agents.get(peer)
        if name is None:
            raise TransportError(f"peer {peer} is not known")
        local = self._descriptors(writes.local, writes.length, writes.local_device)
        remote = self._descriptors(writes.remote, writes.length, writes.remote_device)
        try:
            request = self._agent.createXferReq(nixl.NIXL_WRITE, local, remote, name, "", [self._backend])
        except _ERRORS as error:
            raise TransportError(f"cannot prepare a write to peer {peer}: {error}") from error
        write = _Write(peer, request)
        write.state = self._started(write)
        handle = WriteHandle(next(self._numbers))
        self._writes[handle] = write
        return handle

    def poll(self, handle: WriteHandle) -> WriteState:
        write = self._writes[handle]
        if write.state is WriteState.PENDING:
            write.state = self._state(write)
        return write.state

    def release(self, handle: WriteHandle) -> None:
        write = self._writes[handle]
        if write.state is WriteState.PENDING:
            raise StateError(f"handle {handle} is pending")
        del self._writes[handle]
        self._agent.releaseXferReq(write.request)

    def drain(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        if not wait_until_read(deadline):
            return False
        for _ in range(FENCE_PASSES):
            self._agent.getNotifs({}, [self._backend])
        return True

    def close(self) -> None:
        for peer in list(self._agents):
            self.remove_peer(peer)
        for handle in list(self._writes):
            self.release(handle)
        if self._registered is not None:
            self._agent.deregisterMem(self._registered, [self._backend])
            self._registered = None
        del self._agent

    def _descriptors(self, addresses: AddressArray, lengths: AddressArray, device: int) -> "nixl.nixlXferDList":
        rows = np.empty((len(addresses), 3), dtype=np.uint64)
        rows[:, 0], rows[:, 1], rows[:, 2] = addresses, lengths, device
        return nixl.nixlXferDList(self._segment, rows)

    def _started(self, write: _Write) -> WriteState:
        try:
            return _state_of(self._agent.postXferReq(write.request, ""))
        except _ERRORS:
            return WriteState.FAILED

    def _state(self, write: _Write) -> WriteState:
        try:
            return _state_of(self._agent.getXferStatus(write.request))
        except _ERRORS:
            return WriteState.FAILED


def _state_of(status: "nixl.nixl_status_t") -> WriteState:
    if status == nixl.NIXL_SUCCESS:
        return WriteState.DONE
    return WriteState.PENDING if status == nixl.NIXL_IN_PROG else WriteState.FAILED
