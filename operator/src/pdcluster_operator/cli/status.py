"""`pdc status`: what a PDCluster is doing, once or for as long as one watches."""

from typing import Annotated

import typer

from pdcluster_operator.cli.options import Context, Format, Kubeconfig, Name, Namespace, Output


def status(
    name: Name = None,
    namespace: Namespace = None,
    every_namespace: Annotated[
        bool, typer.Option("-A", "--all-namespaces", help="PDClusters of all namespaces")
    ] = False,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="show every change until Ctrl-C")] = False,
    output: Format = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show conditions, roles, revisions and pods of one PDCluster, or of all in the namespace."""
    from pdcluster_operator.cli.session import Place, in_session
    from pdcluster_operator.cli.status_show import Question, once, watched

    question = Question(name, every_namespace, output)
    place = Place(namespace, context, kubeconfig)
    in_session(place, lambda session: (watched if watch else once)(session, question))
