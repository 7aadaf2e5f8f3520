"""Command line of all processes. Each command imports what it runs only when it runs.

A start that fails says why in one `failed` line on stderr and ends with status 1, for a wrong flag as for a port
that is taken.
"""

import sys
from collections.abc import Sequence

import structlog
import typer

from pdcluster_worker import logs
from pdcluster_worker.cli.executor import executor
from pdcluster_worker.cli.fetch import fetch
from pdcluster_worker.cli.router import router
from pdcluster_worker.cli.worker import worker
from pdcluster_worker.errors import WorkerError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(worker)
app.command()(router)
app.command()(executor)
app.command()(fetch)


@app.callback()
def root() -> None:
    """pdcluster: prefill and decode workers, and the router in front of them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logs.configure(component=arguments[0] if arguments else "worker")
    log = structlog.get_logger(__name__)
    try:
        status = app(args=list(arguments), standalone_mode=False)
    except typer.TyperException as error:
        log.error("failed", reason=error.format_message())
        return 1
    except WorkerError as error:
        log.error("failed", reason=str(error))
        return 1
    return status if isinstance(status, int) else 0
