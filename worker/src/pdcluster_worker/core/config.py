"""Settings of a core, and what it tells about itself. Immutable; every limit of time that the core obeys is here."""

import msgspec

from pdcluster_worker.core.wire import Role


class CoreConfig(msgspec.Struct, frozen=True):
    """Times in seconds, sizes in tokens or blocks as named."""

    role: Role
    num_blocks: int
    block_size: int
    max_model_length: int
    vocab_size: int
    model_id: str
    max_batch_tokens: int = 2048
    max_running_requests: int = 256
    prefix_caching: bool = True
    ranks: int = 1
    lease_ttl: float = 10.0
    """A lease lives this long after the last heartbeat of the prefill worker that holds it."""
    plans_in_flight: int = 2
    heartbeat_interval: float = 1.0
    reserve_timeout: float = 2.0
    reserve_attempts: int = 6
    """Time-outs, lost links, lost leases and failed transfers of one request before it fails."""
    head_age: float = 2.0
    """Smaller requests may pass the head of the queue until it has waited this long."""
    commit_timeout: float = 5.0
    attach_timeout: float = 10.0
    """How long a committed request, or finished output, waits for a router to attach."""
    reattach_timeout: float = 5.0
    relink_grace: float = 1.0
    """How long leases at a decode worker whose link broke are still counted on."""
    peer_silence: float = 3.0
    """A decode worker that has said nothing for so long gets no new requests until it speaks."""
    lease_grace: float = 2.0
    """A lease younger than this may be missing in a peer's list: its grant may be on the way."""
    max_preemptions: int = 2
    """On a decode worker; then the request goes back to the router."""

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold the KV of so many tokens."""
        return -(-tokens // self.block_size)

    @property
    def max_request_blocks(self) -> int:
        """The most that one request can ever hold."""
        return self.blocks_for(self.max_model_length)


class Snapshot(msgspec.Struct, frozen=True):
    """Gauges, as of the last take."""

    requests_waiting: int
    requests_running: int
    queued_tokens: int
    """Prompt tokens that are neither computed nor in the prefix cache."""
    prefill_tokens_per_second: float
    """Measured; 0 before the first prefill."""
    prefill_queue_seconds: float
    blocks: dict[str, int]
    """By holder: free, running, prefix, leased, quarantined. They add up to the pool."""
    leases: dict[str, int]
    """By state: live, quarantined (given here), held (got from decode workers)."""
    kv_peers: int
    draining: bool
    free_slots: int

    @property
    def kv_usage(self) -> float:
        """Share of the pool that is neither free nor evictable."""
        total = sum(self.blocks.values())
        return (total - self.blocks["free"] - self.blocks["prefix"]) / total if total else 0.0
