"""Command lines of worker and router: the one place that knows their flags (see ARCHITECTURE.md)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pdcluster_operator.crd.cluster import ClusterSpec
from pdcluster_operator.crd.engine import Engine
from pdcluster_operator.crd.role import Role
from pdcluster_operator.desired.pod import Seat, TLSPaths

MODULE = ("-m", "pdcluster_worker")

ENGINE_FLAGS = {
    "prepare_threads": "--prepare-threads",
    "block_size": "--block-size",
    "kv_blocks": "--kv-blocks",
    "max_model_length": "--max-model-length",
    "max_batch_tokens": "--max-batch-tokens",
    "max_running_requests": "--max-running-requests",
    "dtype": "--dtype",
    "runner": "--runner",
    "memory_utilization": "--memory-utilization",
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all pods of one PDCluster share."""

    spec: ClusterSpec
    identity: str
    """NAME.NAMESPACE"""
    revision: str
    model_path: str
    kv_protocol: str
    drain_seconds: int
    profile_folder: str = ""
    """Prefix of a relative `engine.profile`."""


def worker_command(setting: Setting, role_name: str, role: Role, seat: Seat) -> tuple[str, ...]:
    """argv after the interpreter."""
    arguments = [
        *_common(setting, seat),
        *("--role", role_name, "--grpc-port", str(seat.ports.grpc), "--metrics-port", str(seat.ports.metrics)),
        *("--advertise", seat.advertise, "--kv-protocol", setting.kv_protocol, "--gpu-count", str(role.gpu.count)),
        *("--drain-timeout", str(setting.drain_seconds)),
        *_cpu(seat),
        *_engine(setting.spec.engine_of(role), setting),
    ]
    return (*MODULE, "worker", *arguments)


def router_command(
    setting: Setting, seat: Seat, workers: Sequence[str], *, drain_seconds: int, api_key_file: str = ""
) -> tuple[str, ...]:
    """`workers` are ROLE=HOST:PORT; without any the router asks the Kubernetes API."""
    router = setting.spec.router
    arguments = [
        *_common(setting, seat),
        *("--port", str(seat.ports.http), "--policy", router.policy, "--max-queue", str(router.max_queue)),
        *(
            "--queue-timeout",
            str(router.queue_timeout_seconds),
            "--request-timeout",
            str(router.request_timeout_seconds),
        ),
        *("--min-disagg-tokens", str(router.min_disagg_tokens), "--max-body-bytes", str(router.max_body_bytes)),
        *("--drain-timeout", str(drain_seconds)),
        *(part for worker in workers for part in ("--worker", worker)),
        *(("--api-key-file", api_key_file) if api_key_file else ()),
        *(("--metrics-port", str(seat.ports.metrics)) if seat.ports.metrics else ()),
    ]
    return (*MODULE, "router", *arguments)


def _common(setting: Setting, seat: Seat) -> Iterator[str]:
    yield from ("--name", seat.name, "--host", seat.host, "--cluster", setting.identity)
    yield from ("--model-path", setting.model_path, "--model-name", setting.spec.model.name)
    yield from ("--revision", setting.revision)
    if seat.tls is not None:
        yield from _tls(seat.tls)
    if setting.spec.observability.tracing is not None:
        yield from ("--trace-endpoint", setting.spec.observability.tracing.endpoint)


def _tls(paths: TLSPaths) -> tuple[str, ...]:
    return ("--tls-cert", paths.cert, "--tls-key", paths.key, "--tls-ca", paths.ca)


def _cpu(seat: Seat) -> Iterator[str]:
    if seat.cpu is not None:
        yield from ("--threads", str(seat.cpu.threads))
        if seat.cpu.affinity:
            yield from ("--cpu-affinity", ",".join(map(str, seat.cpu.affinity)))


def _engine(engine: Engine, setting: Setting) -> Iterator[str]:
    for field, flag in ENGINE_FLAGS.items():
        value = getattr(engine, field)
        if value is not None:
            yield from (flag, str(value))
    yield "--prefix-caching" if engine.prefix_caching else "--no-prefix-caching"
    if engine.profile is not None:
        relative = setting.profile_folder and not engine.profile.startswith("/")
        yield from ("--profile", f"{setting.profile_folder}/{engine.profile}" if relative else engine.profile)
