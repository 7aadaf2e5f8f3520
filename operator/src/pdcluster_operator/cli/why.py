"""`pdc why`: what limits a role's scale now."""

from typing import Annotated

import typer

from pdcluster_operator.cli.options import ClusterName, Context, Format, Kubeconfig, Namespace, Output


def why(
    role: Annotated[str, typer.Argument(help="prefill, decode or mixed", show_default=False)],
    cluster: ClusterName = None,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Explain what a role asks for, what it gets, and what stands in between."""
    from pdcluster_operator.cli.session import Place, in_session
    from pdcluster_operator.cli.why_show import explain

    in_session(Place(namespace, context, kubeconfig), lambda session: explain(session, cluster, role, output))
