"""Settings of the router process: one immutable object, made once from flags (cli.py)."""

import enum
from pathlib import Path

import msgspec

from pdcluster_worker.config import TLSFiles
from pdcluster_worker.core.wire import Role


class Policy(enum.StrEnum):
    """How a prefill worker is chosen."""

    ROUND_ROBIN = "RoundRobin"
    LEAST_TOKENS = "LeastTokens"
    PREFIX_AWARE = "PrefixAware"


class StaticWorker(msgspec.Struct, frozen=True):
    """One `--worker ROLE=HOST:PORT`."""

    role: Role
    address: str


class RouterConfig(msgspec.Struct, frozen=True):
    """Times are seconds."""

    model_path: Path
    model_name: str
    name: str = "router"
    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int | None = None
    """Serves /metrics and /health there as well; None: on `port` alone."""
    revision: str = ""
    """Workers of other revisions are not used; empty accepts any."""
    workers: tuple[StaticWorker, ...] = ()
    cluster: str = ""
    """NAME.NAMESPACE of the PDCluster: pods are watched there when no worker is given, and named in peers' SANs."""
    api_key_file: Path | None = None
    """One key a line; read again when it changes."""
    max_queue: int = 1024
    """Choices without a first token yet; beyond it requests are refused."""
    queue_timeout: float = 120.0
    """How long a request waits for any worker that can take it, before it has been taken once."""
    request_timeout: float = 600.0
    min_disagg_tokens: int = 0
    """Shorter prompts go to mixed workers when there are some."""
    max_body_bytes: int = 16 << 20
    policy: Policy = Policy.PREFIX_AWARE
    tls: TLSFiles | None = None
    trace_endpoint: str = ""
    drain_timeout: float = 600.0
    """After SIGTERM: how long open requests may take to end."""
    reattach_grace: float = 5.0
    """How long a worker whose stream broke may take to come back as the same process."""
    keepalive: float = 15.0
    """Idle streams get an SSE comment this often."""
    max_behind_bytes: int = 1 << 20
    """A client that has this much unread is dropped."""
    max_message_bytes: int = 8 << 20
