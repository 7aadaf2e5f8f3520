"""Transport over NIXL (UCX): InfiniBand or RoCE where a NIC exists, shared memory or TCP elsewhere.

The bindings are used without NIXL's Python wrapper: that one offers pickled descriptors, a listener and handles that
free themselves at the collector's whim. Import this module only after UCX's environment is set (`registry.py`).
"""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nixl_cu12._bindings as nixl
import numpy as np

from pdcluster_worker.core.wire import RankMetadata, Region
from pdcluster_worker.errors import StateError, TransportError
from pdcluster_worker.kv.sockets import wait_until_read
from pdcluster_worker.kv.transport import AddressArray, WriteHandle, Writes, WriteState

PROGRESS_TIMEOUT_MICROSECONDS = 10_000
"""NIXL's progress thread sleeps in poll() for at most this long. 0, NIXL's own default, spins on a whole core."""

ECHO_POLL_SECONDS = 0.001
_ERRORS: tuple[type[Exception], ...] = (
    nixl.nixlBackendError,
    nixl.nixlCancelledError,
    nixl.nixlInvalidParamError,
    nixl.nixlMismatchError,
    nixl.nixlNotAllowedError,
    nixl.nixlNotFoundError,
    nixl.nixlNotPostedError,
    nixl.nixlNotSupportedError,
    nixl.nixlRemoteDisconnectError,
    nixl.nixlRepostActiveError,
    nixl.nixlUnknownError,
)
"""They share no base but Exception."""


@dataclass(slots=True)
class _Agent:
    """A peer's agent. It is forgotten once it is `leaving` and no write to it is left.

    `broken`: a write failed. NIXL then fails all later ones, so the agent is loaded anew before the next.
    """

    name: str
    metadata: bytes
    leaving: bool = False
    broken: bool = False


@dataclass(slots=True)
class _Write:
    agent: _Agent
    request: int
    state: WriteState = WriteState.PENDING


class NixlTransport:
    """KVTransport. State is written by the sender thread; NIXL's own thread moves the bytes.

    An agent with writes pending is kept although its peer was removed: NIXL would forget it and call the writes
    cancelled, and yet their bytes would land later (the contract suite shows it).
    """

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
        self._peers: dict[str, _Agent] = {}
        self._agents: dict[str, _Agent] = {}
        """By name; those that are leaving as well."""
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
        if peer in self._peers:
            raise TransportError(f"peer {peer} is known already")
        name = self._load(metadata.agent_metadata, peer)
        if name != metadata.agent_name:
            self._agent.invalidateRemoteMD(name)
            raise TransportError(f"the agent metadata of peer {peer} is that of {name}, not {metadata.agent_name}")
        agent = self._agents.setdefault(name, _Agent(name, metadata.agent_metadata))
        agent.leaving = False
        self._peers[peer] = agent

    def remove_peer(self, peer: str) -> None:
        agent = self._peers.pop(peer, None)
        if agent is not None:
            agent.leaving = True
            self._forget_if_done(agent)

    def post(self, peer: str, writes: Writes) -> WriteHandle:
        agent = self._peers.get(peer)
        if agent is None:
            raise TransportError(f"peer {peer} is not known")
        if agent.broken and not self._in_use(agent):
            self._agent.invalidateRemoteMD(agent.name)
            self._load(agent.metadata, peer)
            agent.broken = False
        local = self._descriptors(writes.local, writes.length, writes.local_device)
        remote = self._descriptors(writes.remote, writes.length, writes.remote_device)
        try:
            request = self._agent.createXferReq(nixl.NIXL_WRITE, local, remote, agent.name, "", [self._backend])
        except _ERRORS as error:
            raise TransportError(f"cannot prepare a write to peer {peer}: {error}") from error
        handle = WriteHandle(next(self._numbers))
        write = self._writes[handle] = _Write(agent, request)
        self._note(write, lambda: self._agent.postXferReq(request, ""))
        return handle

    def poll(self, handle: WriteHandle) -> WriteState:
        write = self._writes[handle]
        if write.state is WriteState.PENDING:
            self._note(write, lambda: self._agent.getXferStatus(write.request))
        return write.state

    def release(self, handle: WriteHandle) -> None:
        write = self._writes[handle]
        if write.state is WriteState.PENDING:
            raise StateError(f"handle {handle} is pending")
        del self._writes[handle]
        self._agent.releaseXferReq(write.request)
        self._forget_if_done(write.agent)

    def drain(self, timeout: float) -> bool:
        """First the kernel's side, then UCX's: what UCX has read, it has stored before it answers an echo."""
        deadline = time.monotonic() + timeout
        return wait_until_read(deadline) and self._echo(deadline)

    def close(self) -> None:
        for peer in list(self._peers):
            self.remove_peer(peer)
        if self._registered is not None:
            self._agent.deregisterMem(self._registered, [self._backend])
            self._registered = None
        del self._agent

    def _descriptors(self, addresses: AddressArray, lengths: AddressArray, device: int) -> "nixl.nixlXferDList":
        rows = np.empty((len(addresses), 3), dtype=np.uint64)
        rows[:, 0], rows[:, 1], rows[:, 2] = addresses, lengths, device
        return nixl.nixlXferDList(self._segment, rows)

    def _note(self, write: _Write, ask: Callable[[], "nixl.nixl_status_t"]) -> None:
        """Asks NIXL and keeps the state; a write becomes final here alone."""
        try:
            write.state = _state_of(ask())
        except _ERRORS:
            write.state = WriteState.FAILED
        if write.state is WriteState.FAILED:
            write.agent.broken = True

    def _load(self, metadata: bytes, peer: str) -> str:
        """Returns the agent's name."""
        try:
            return str(self._agent.loadRemoteMD(metadata).decode())
        except _ERRORS as error:
            raise TransportError(f"the agent metadata of peer {peer} is not usable: {error}") from error

    def _in_use(self, agent: _Agent) -> bool:
        return any(write.agent is agent for write in self._writes.values())

    def _forget_if_done(self, agent: _Agent) -> None:
        if agent.leaving and not self._in_use(agent) and self._agents.pop(agent.name, None) is not None:
            self._agent.invalidateRemoteMD(agent.name)

    def _echo(self, deadline: float) -> bool:
        """Sends a note to this agent itself, through the same queues as the peers' writes, and waits for it."""
        note = uuid.uuid4().bytes
        self._agent.genNotif(self.agent_name, note, [self._backend])
        pause = threading.Event()
        while note not in self._agent.getNotifs({}, [self._backend]).get(self.agent_name, []):
            if time.monotonic() >= deadline:
                return False
            pause.wait(ECHO_POLL_SECONDS)
        return True


def _state_of(status: "nixl.nixl_status_t") -> WriteState:
    if status == nixl.NIXL_SUCCESS:
        return WriteState.DONE
    return WriteState.PENDING if status == nixl.NIXL_IN_PROG else WriteState.FAILED
