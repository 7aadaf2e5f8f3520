"""The commands of `pdc`."""

import typer

from pdcluster_operator.cli.chat import chat
from pdcluster_operator.cli.run import run, validate
from pdcluster_operator.cli.version import version

app = typer.Typer(
    name="pdc",
    help="Serve large language models with prompts and tokens computed on different machines.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(chat)
app.command()(validate)
app.command()(version)
