"""Who this worker is, once its model is loaded: what it tells routers and peers first."""

from dataclasses import dataclass

from pdcluster_worker.core.wire import RankMetadata, Role


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """`address` is what others reach this worker by."""

    instance_id: str
    name: str
    role: Role
    revision: str
    model: str
    layout_hash: str
    max_model_length: int
    vocab_size: int
    block_size: int
    num_blocks: int
    ranks: tuple[RankMetadata, ...]
    address: str
