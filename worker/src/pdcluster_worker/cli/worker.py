"""`worker`: one prefill, decode or mixed worker."""

import re
from pathlib import Path
from typing import Annotated

import typer

from pdcluster_worker.cli import flags
from pdcluster_worker.config import EngineConfig, KVProtocol, RunnerKind, WorkerConfig
from pdcluster_worker.core.wire import Role
from pdcluster_worker.errors import ConfigError

ADDRESS = re.compile(r"^(\[[0-9a-fA-F:]+\]|[^\s:]+):\d{1,5}$")

Positive = typer.Option(min=1)


def worker(
    role: Annotated[Role, typer.Option()],
    model_path: flags.ModelPath,
    model_name: flags.ModelName,
    name: Annotated[str, typer.Option(help="the pod's name; a restart keeps it")] = "worker",
    revision: flags.Revision = "",
    host: flags.Host = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 0,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one")] = 0,
    advertise: Annotated[str, typer.Option(help="HOST:PORT that peers use; default: what is listened on")] = "",
    kv_protocol: Annotated[KVProtocol, typer.Option()] = KVProtocol.TCP,
    gpu_count: Annotated[int, typer.Option(min=0, help="0: a CPU worker")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="of the executor's arithmetic")] = None,
    cpu_affinity: Annotated[str, typer.Option(help="core numbers for the executor, as 0,1")] = "",
    drain_timeout: Annotated[float, typer.Option(min=0, help="seconds between SIGTERM and the end")] = 30.0,
    cluster: flags.Cluster = "",
    tls_cert: flags.TLSCert = None,
    tls_key: flags.TLSKey = None,
    tls_ca: flags.TLSCa = None,
    trace_endpoint: Annotated[str, typer.Option(help="the router makes the spans, from what workers measure")] = "",
    max_message_bytes: flags.MaxMessageBytes = 8 << 20,
    prepare_threads: Annotated[int, typer.Option(min=1, max=256, envvar="PDC_PREPARE_THREADS")] = 5,
    block_size: Annotated[int, Positive] = 64,
    kv_blocks: Annotated[int | None, typer.Option(min=1, help="default: by --memory-utilization")] = None,
    max_model_length: Annotated[int | None, typer.Option(min=2, help="default: the model's")] = None,
    max_batch_tokens: Annotated[int, typer.Option(min=1, help="of one step: the chunked prefill's budget")] = 2048,
    max_running_requests: Annotated[int, Positive] = 256,
    prefix_caching: Annotated[bool, typer.Option()] = True,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16")] = "auto",
    runner: Annotated[RunnerKind, typer.Option()] = RunnerKind.PADDLE,
    profile: Annotated[Path | None, typer.Option(help="timing profile of the simulated runner")] = None,
    memory_utilization: Annotated[float, typer.Option(min=0.05, max=1.0)] = 0.9,
) -> int:
    """Serve one role of a PDCluster."""
    given = dict(locals())
    if advertise and not ADDRESS.match(advertise):
        raise ConfigError(f"--advertise: {advertise!r} is not HOST:PORT")
    flags.existing(model_path, "--model-path")
    if profile is not None:
        flags.existing(profile, "--profile")
    given["engine"] = flags.settings(EngineConfig, given)
    given["cpu_affinity"] = flags.cores(cpu_affinity)
    given["tls"] = flags.tls_files(tls_cert, tls_key, tls_ca)
    config = flags.settings(WorkerConfig, given)
    from pdcluster_worker.engine.process import run_worker

    return run_worker(config)
