"""What other threads of the executor tell the sender thread. Values; none is shared after it is put."""

from dataclasses import dataclass

from pdcluster_worker.core.plan import TransferSpec
from pdcluster_worker.ipc.messages import PeerInfo


@dataclass(frozen=True, slots=True)
class AddPeer:
    info: PeerInfo


@dataclass(frozen=True, slots=True)
class RemovePeer:
    peer: str


@dataclass(frozen=True, slots=True)
class Register:
    """A transfer as received; it starts with Activate, or at once when it has no slot."""

    spec: TransferSpec
    deadline: float


@dataclass(frozen=True, slots=True)
class Activate:
    """The step thread has reached the transfer's place among the plans. `computed`: how far the slot's KV goes."""

    transfer_id: int
    computed: int


@dataclass(frozen=True, slots=True)
class LayerWritten:
    """KV of `layer` is in place up to ends[slot] of each slot."""

    layer: int
    ends: dict[int, int]


@dataclass(frozen=True, slots=True)
class DropSlots:
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    transfer_id: int


@dataclass(frozen=True, slots=True)
class Stop:
    pass


Command = AddPeer | RemovePeer | Register | Activate | LayerWritten | DropSlots | Cancel | Stop
