"""`pdc`: its commands, and how errors reach people: one sentence on stderr, exit status 1 (2 for wrong usage)."""

import sys

import typer

from pdcluster_operator.cli.chat import chat
from pdcluster_operator.cli.run import run, validate
from pdcluster_operator.cli.version import version
from pdcluster_operator.errors import OperatorError

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


def main() -> None:
    try:
        app()
    except OperatorError as error:
        print(f"pdc: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
