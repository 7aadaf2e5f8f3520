"""`pdc run` and `pdc validate`.

What they need is imported when they run: a command line that starts quickly is stopped quickly, and in good order.
"""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Option("-f", "--file", help="a PDCluster in YAML or JSON; - is standard input")]


def run(
    file: File,
    as_json: Annotated[bool, typer.Option("--json", help="a line on stdout when ready and after every change")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the endpoint; 0: any free one")] = 0,
    log_dir: Annotated[Path | None, typer.Option(help="folder for a log file per pod")] = None,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="show the logs of all pods")] = False,
    api_key_file: Annotated[Path | None, typer.Option(help="keys that clients must show, one a line")] = None,
    start_timeout: Annotated[float, typer.Option(min=1, help="seconds that a pod may take to load")] = 600.0,
) -> None:
    """Run a PDCluster on this machine, until Ctrl-C."""
    from pdcluster_operator.local import run as local

    local.run(local.RunOptions(file, port, as_json, verbose, log_dir, api_key_file, start_timeout))


def validate(file: File) -> None:
    """Check a manifest without running it."""
    from pdcluster_operator.local.manifest import read_manifest

    cluster = read_manifest(file)
    print(f"{file}: PDCluster {cluster.metadata.name} is valid")
