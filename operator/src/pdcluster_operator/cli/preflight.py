"""`pdc preflight`: whether a cluster is ready for PDClusters, or for one manifest."""

from pathlib import Path
from typing import Annotated

import typer

from pdcluster_operator.cli.options import Context, Format, Kubeconfig, Namespace, Output


def preflight(
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", help="a PDCluster that is to be applied; - is standard input", show_default=False),
    ] = None,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Check a cluster before applying. Exit status 1 when something would not work."""
    from pdcluster_operator.cli.preflight_show import check
    from pdcluster_operator.cli.session import Place, in_session
    from pdcluster_operator.local.manifest import read_manifest

    cluster = read_manifest(file) if file else None
    if not in_session(Place(namespace, context, kubeconfig), lambda session: check(session, cluster, output)):
        raise typer.Exit(1)
