"""What the executor needs of something that moves KV bytes: one-sided writes into a peer's registered memory.

A transport belongs to one executor process. Its sender thread is the only caller, except that `drain` may run on
another thread. Peers learn of this agent by the metadata that travels inside Hello and Welcome, and no other way.

Nothing here revokes access: a peer that holds the metadata can write until its process ends. What must not be
overwritten is kept out of use by the core (quarantine), and `drain` says when what had arrived has landed.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np
import numpy.typing as npt

from pdcluster_worker.core.wire import RankMetadata, Region

AddressArray = npt.NDArray[np.uint64]
WriteHandle = NewType("WriteHandle", int)


class WriteState(enum.Enum):
    """PENDING may become DONE or FAILED; those two are final."""

    PENDING = "pending"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Writes:
    """n copies: length[i] bytes from local[i] here to remote[i] there. Arrays are [n], addresses absolute."""

    local: AddressArray
    remote: AddressArray
    length: AddressArray
    local_device: int = 0
    remote_device: int = 0

    @property
    def total_bytes(self) -> int:
        return int(self.length.sum())


class KVTransport(Protocol):
    """See the module's text for who may call."""

    agent_name: str
    """Unique per start: a peer that knows an old agent of the same worker can tell them apart."""

    def register(self, regions: Sequence[Region]) -> None:
        """Makes own memory readable for own writes and writable for peers. Once, before `metadata`."""
        ...

    def metadata(self) -> bytes:
        """What a peer needs to reach this agent."""
        ...

    def add_peer(self, peer: str, metadata: RankMetadata) -> None:
        """Connects nothing yet. Raises TransportError when the metadata is not usable or the peer is known."""
        ...

    def remove_peer(self, peer: str) -> None:
        """Posts to the peer fail from now on. No effect if unknown.

        Pending handles stay pending until their bytes have landed or can no longer land. The peer may be added
        again at once, with the same agent or a new one.
        """
        ...

    def post(self, peer: str, writes: Writes) -> WriteHandle:
        """Starts the writes. Raises TransportError when they could not be started: then none was."""
        ...

    def poll(self, handle: WriteHandle) -> WriteState:
        """DONE: the bytes are in the peer's memory. FAILED: some may be, and no more will follow from this handle."""
        ...

    def release(self, handle: WriteHandle) -> None:
        """Frees a handle whose state is final."""
        ...

    def drain(self, timeout: float) -> bool:
        """True: what had arrived at this agent before the call has landed in memory. False: not within `timeout`."""
        ...

    def close(self) -> None:
        """Ends the agent. Only with no handle pending."""
        ...
