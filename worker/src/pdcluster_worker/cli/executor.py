"""`executor`: one rank's process, started by its engine."""

from typing import Annotated

import typer


def executor(config: Annotated[str, typer.Option(help="settings as JSON, made by the engine")]) -> int:
    """Run one rank of a worker."""
    from pdcluster_worker.executor.process import run_executor
    from pdcluster_worker.ipc.startup import decode_config

    return run_executor(decode_config(config))
