"""The first messages of a Splitwise link, as values. Everything later is events and effects of the core."""

import msgspec

from pdcluster_worker.core.wire import Heartbeat, RankMetadata
from pdcluster_worker.splitwise.limits import PROTOCOL_VERSION


class LinkHello(msgspec.Struct, frozen=True):
    """From the prefill worker."""

    layout_hash: str
    model: str
    revision: str
    instance_id: str
    name: str
    ranks: tuple[RankMetadata, ...]
    heartbeat: Heartbeat
    protocol_version: int = PROTOCOL_VERSION


class LinkWelcome(msgspec.Struct, frozen=True):
    """From the decode worker. Credits follow in messages of their own. `lease_ttl` in seconds."""

    layout_hash: str
    instance_id: str
    ranks: tuple[RankMetadata, ...]
    lease_ttl: float
    pool_blocks: int
    heartbeat: Heartbeat
    protocol_version: int = PROTOCOL_VERSION
