"""Hello and Welcome to and from bytes. Version and layout are checked before anything else is looked at."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from pdcluster_proto.v1 import splitwise_pb2 as pb
from pdcluster_worker.core.wire import Heartbeat, RankMetadata, Region
from pdcluster_worker.errors import ProtocolError
from pdcluster_worker.splitwise import checks, limits
from pdcluster_worker.splitwise.link_messages import LinkHello, LinkWelcome


class Opening(Protocol):
    protocol_version: int
    layout_hash: str


def encode_hello(hello: LinkHello) -> bytes:
    message = pb.PrefillMessage()
    message.hello.protocol_version = hello.protocol_version
    message.hello.layout_hash = hello.layout_hash
    message.hello.model = hello.model
    message.hello.revision = hello.revision
    message.hello.instance_id = hello.instance_id
    message.hello.name = hello.name
    for rank in hello.ranks:
        _write_rank(rank, message.hello.ranks.add())
    write_heartbeat(hello.heartbeat, message.hello.heartbeat)
    return message.SerializeToString()


def decode_hello(data: bytes, layout_hash: str) -> LinkHello:
    """`layout_hash` is this side's. Raises ProtocolError of kind version or layout first."""
    message = checks.parse(pb.PrefillMessage, data)
    checks.first_alone(message.HasField("hello"), True, "hello")
    hello = message.hello
    check_opening(hello, layout_hash)
    return LinkHello(
        layout_hash=hello.layout_hash,
        model=checks.bounded(hello.model, limits.MAX_NAME, "model"),
        revision=checks.bounded(hello.revision, limits.MAX_NAME, "revision"),
        instance_id=read_instance_id(hello.instance_id),
        name=checks.bounded(hello.name, limits.MAX_NAME, "name"),
        ranks=_read_ranks(hello.ranks),
        heartbeat=read_heartbeat(hello.heartbeat),
        protocol_version=hello.protocol_version,
    )


def encode_welcome(welcome: LinkWelcome) -> bytes:
    message = pb.DecodeMessage()
    message.welcome.protocol_version = welcome.protocol_version
    message.welcome.layout_hash = welcome.layout_hash
    message.welcome.instance_id = welcome.instance_id
    for rank in welcome.ranks:
        _write_rank(rank, message.welcome.ranks.add())
    message.welcome.lease_ttl_ms = round(welcome.lease_ttl * 1000)
    message.welcome.pool_blocks = welcome.pool_blocks
    write_heartbeat(welcome.heartbeat, message.welcome.heartbeat)
    return message.SerializeToString()


def decode_welcome(data: bytes, layout_hash: str) -> LinkWelcome:
    """`layout_hash` is this side's. Raises ProtocolError of kind version or layout first."""
    message = checks.parse(pb.DecodeMessage, data)
    checks.first_alone(message.HasField("welcome"), True, "welcome")
    welcome = message.welcome
    check_opening(welcome, layout_hash)
    return LinkWelcome(
        layout_hash=welcome.layout_hash,
        instance_id=read_instance_id(welcome.instance_id),
        ranks=_read_ranks(welcome.ranks),
        lease_ttl=welcome.lease_ttl_ms / 1000,
        pool_blocks=checks.at_most(welcome.pool_blocks, limits.MAX_POOL_BLOCKS, "pool_blocks"),
        heartbeat=read_heartbeat(welcome.heartbeat),
        protocol_version=welcome.protocol_version,
    )


def check_opening(opening: Opening, layout_hash: str) -> None:
    if opening.protocol_version != limits.PROTOCOL_VERSION:
        raise ProtocolError(
            f"protocol version {opening.protocol_version}; this side speaks {limits.PROTOCOL_VERSION}", "version"
        )
    checks.bounded(opening.layout_hash, limits.MAX_NAME, "layout_hash")
    if opening.layout_hash != layout_hash:
        raise ProtocolError(f"KV layout {opening.layout_hash!r}; this side has {layout_hash!r}", "layout")


def write_heartbeat(heartbeat: Heartbeat, message: pb.Heartbeat) -> None:
    message.SetInParent()
    message.lease_count = heartbeat.lease_count
    message.lease_xor = heartbeat.lease_xor
    message.full = heartbeat.full
    message.lease_ids.extend(heartbeat.lease_ids)
    message.demand_blocks = min(heartbeat.demand_blocks, (1 << 32) - 1)
    message.demand_requests = heartbeat.demand_requests
    message.reserved_blocks = heartbeat.reserved_blocks
    message.reserved_requests = heartbeat.reserved_requests


def read_heartbeat(message: pb.Heartbeat) -> Heartbeat:
    checks.bounded(message.lease_ids, limits.MAX_LEASES, "lease_ids")
    return Heartbeat(
        lease_count=message.lease_count,
        lease_xor=message.lease_xor,
        full=message.full,
        lease_ids=tuple(message.lease_ids),
        demand_blocks=message.demand_blocks,
        demand_requests=message.demand_requests,
        reserved_blocks=message.reserved_blocks,
        reserved_requests=message.reserved_requests,
    )


def read_instance_id(value: str) -> str:
    if not value:
        raise ProtocolError("instance_id: is empty", "malformed")
    return checks.bounded(value, limits.MAX_NAME, "instance_id")


def _write_rank(rank: RankMetadata, message: pb.RankMetadata) -> None:
    message.rank = rank.rank
    message.agent_name = rank.agent_name
    message.agent_metadata = rank.agent_metadata
    for region in rank.regions:
        message.regions.add(address=region.address, length=region.length, device=region.device)
    message.num_blocks = rank.num_blocks
    message.block_bytes = rank.block_bytes


def _read_ranks(items: Sequence[pb.RankMetadata]) -> tuple[RankMetadata, ...]:
    checks.bounded(items, limits.MAX_RANKS, "ranks")
    ranks = tuple(_read_rank(item) for item in items)
    if [rank.rank for rank in ranks] != list(range(len(ranks))) or not ranks:
        raise ProtocolError("ranks: must be numbered from 0 without a gap", "malformed")
    return ranks


def _read_rank(item: pb.RankMetadata) -> RankMetadata:
    return RankMetadata(
        rank=item.rank,
        agent_name=checks.bounded(item.agent_name, limits.MAX_NAME, "agent_name"),
        agent_metadata=checks.bounded(item.agent_metadata, limits.MAX_AGENT_METADATA, "agent_metadata"),
        regions=_read_regions(checks.bounded(item.regions, limits.MAX_REGIONS, "regions")),
        num_blocks=checks.at_most(item.num_blocks, limits.MAX_POOL_BLOCKS, "num_blocks"),
        block_bytes=item.block_bytes,
    )


def _read_regions(items: Iterable[pb.Region]) -> tuple[Region, ...]:
    return tuple(Region(item.address, item.length, item.device) for item in items)
