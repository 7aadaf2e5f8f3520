"""The commands of `pdc`. Modules here import little: each command imports what it needs when it runs."""

from collections.abc import Callable

import typer

from pdcluster_operator.cli import rollout
from pdcluster_operator.cli.chat import chat
from pdcluster_operator.cli.drain import drain, resume
from pdcluster_operator.cli.preflight import preflight
from pdcluster_operator.cli.run import run, validate
from pdcluster_operator.cli.status import status
from pdcluster_operator.cli.version import version
from pdcluster_operator.cli.why import why

HERE, CLUSTER = "On this machine", "On a cluster"

app = typer.Typer(
    name="pdc",
    help="Serve large language models with prompts and tokens computed on different machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    HERE: (run, chat, validate, version),
    CLUSTER: (status, why, drain, resume, preflight),
}
for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(rollout.app, name="rollout", rich_help_panel=CLUSTER)
