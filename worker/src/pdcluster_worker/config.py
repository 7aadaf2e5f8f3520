"""Settings of a worker process: one immutable object, made once from flags and environment (cli.py)."""

import enum
from pathlib import Path

import msgspec

from pdcluster_worker.core.wire import Role
from pdcluster_worker.kv.protocol import KVProtocol as KVProtocol


class RunnerKind(enum.StrEnum):
    PADDLE = "Paddle"
    SIMULATED = "Simulated"


class TLSFiles(msgspec.Struct, frozen=True):
    """Paths; read again when they change. All three or none."""

    cert: Path
    key: Path
    ca: Path


class EngineConfig(msgspec.Struct, frozen=True):
    """`spec.engine` of a PDCluster: the same names, kebab-cased, are the flags. None: chosen at start."""

    prepare_threads: int = 5
    block_size: int = 64
    kv_blocks: int | None = None
    max_model_length: int | None = None
    max_batch_tokens: int = 2048
    max_running_requests: int = 256
    prefix_caching: bool = True
    dtype: str = "auto"
    runner: RunnerKind = RunnerKind.PADDLE
    profile: Path | None = None
    memory_utilization: float = 0.9


class ExecutorConfig(msgspec.Struct, frozen=True):
    """Handed to each executor process as JSON on its command line."""

    model_path: Path
    model_name: str
    engine: EngineConfig
    kv_protocol: KVProtocol
    gpu_count: int
    rank: int
    world_size: int
    plan_socket: str
    """ZeroMQ address (ipc://) that the engine binds and this rank's PULL connects to."""
    report_socket: str
    """ZeroMQ address (ipc://) that the engine binds and this rank's PUSH connects to."""
    instance_id: str
    threads: int | None = None
    cpu_affinity: tuple[int, ...] = ()
    host: str = ""
    """Where the worker listens. A loopback address keeps the KV transport on loopback as well."""


class WorkerConfig(msgspec.Struct, frozen=True):
    name: str
    role: Role
    model_path: Path
    model_name: str
    engine: EngineConfig
    host: str = "127.0.0.1"
    grpc_port: int = 0
    metrics_port: int = 0
    advertise: str = ""
    """host:port that peers and routers use; empty: host and grpc_port."""
    revision: str = ""
    kv_protocol: KVProtocol = KVProtocol.TCP
    gpu_count: int = 0
    threads: int | None = None
    cpu_affinity: tuple[int, ...] = ()
    tls: TLSFiles | None = None
    cluster: str = ""
    """Name and namespace of the PDCluster, for the SANs that peers must show: NAME.NAMESPACE."""
    drain_timeout: float = 30.0
    max_message_bytes: int = 8 << 20
    trace_endpoint: str = ""
