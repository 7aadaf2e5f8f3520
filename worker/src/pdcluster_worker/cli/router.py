"""`router`: the OpenAI API in front of workers."""

import re
from pathlib import Path
from typing import Annotated

import typer

from pdcluster_worker.cli import flags
from pdcluster_worker.core.wire import Role
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.router.config import Policy, RouterConfig, StaticWorker

WORKER = re.compile(r"^(?P<role>prefill|decode|mixed)=(?P<address>(\[[0-9a-fA-F:]+\]|[^\s:=]+):\d{1,5})$")


def router(
    model_path: flags.ModelPath,
    model_name: flags.ModelName,
    name: Annotated[str, typer.Option(help="the pod's name")] = "router",
    revision: flags.Revision = "",
    host: flags.Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the API; 0: a free one")] = 8000,
    metrics_port: Annotated[int | None, typer.Option(min=0, max=65535, help="serves /metrics there as well")] = None,
    worker: Annotated[list[str] | None, typer.Option(help="ROLE=HOST:PORT; none: the Kubernetes API is asked")] = None,
    cluster: flags.Cluster = "",
    api_key_file: Annotated[Path | None, typer.Option(help="one key a line; read again when it changes")] = None,
    max_queue: Annotated[int, typer.Option(min=1)] = 1024,
    queue_timeout: Annotated[float, typer.Option(min=0)] = 120.0,
    request_timeout: Annotated[float, typer.Option(min=0)] = 600.0,
    min_disagg_tokens: Annotated[int, typer.Option(min=0, help="shorter prompts go to mixed workers")] = 0,
    max_body_bytes: Annotated[int, typer.Option(min=1)] = 16 << 20,
    policy: Annotated[Policy, typer.Option()] = Policy.PREFIX_AWARE,
    tls_cert: flags.TLSCert = None,
    tls_key: flags.TLSKey = None,
    tls_ca: flags.TLSCa = None,
    trace_endpoint: flags.TraceEndpoint = "",
    drain_timeout: Annotated[float, typer.Option(min=0, help="seconds that open requests get after SIGTERM")] = 600.0,
    max_message_bytes: flags.MaxMessageBytes = 8 << 20,
) -> int:
    """Serve the OpenAI API from workers."""
    given = dict(locals())
    flags.existing(model_path, "--model-path")
    if api_key_file is not None:
        flags.existing(api_key_file, "--api-key-file")
    given["workers"] = tuple(static_worker(text) for text in worker or ())
    given["tls"] = flags.tls_files(tls_cert, tls_key, tls_ca)
    config = flags.settings(RouterConfig, given)
    from pdcluster_worker.router.main import run_router

    return run_router(config)


def static_worker(text: str) -> StaticWorker:
    match = WORKER.match(text)
    if match is None:
        raise ConfigError(f"--worker: {text!r} is not ROLE=HOST:PORT with ROLE prefill, decode or mixed")
    return StaticWorker(role=Role(match["role"]), address=match["address"])
