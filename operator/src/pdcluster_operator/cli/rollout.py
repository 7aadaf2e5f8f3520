"""`pdc rollout`: where a change of the workers stands; hold it, let it go on, take it back."""

from typing import Annotated

import typer

from pdcluster_operator.cli.options import Context, Format, Kubeconfig, Name, Namespace, Output

app = typer.Typer(help="See, hold, continue and take back changes of the workers.", no_args_is_help=True)


@app.command()
def status(
    name: Name = None,
    namespace: Namespace = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="wait until the rollout is complete")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="seconds to wait; then the exit status is 1")] = 3600.0,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Wait for a rollout. Exit status 1 when it has stalled or takes too long."""
    from pdcluster_operator.cli.rollout_actions import follow
    from pdcluster_operator.cli.session import Place, in_session

    in_session(Place(namespace, context, kubeconfig), lambda session: follow(session, name, timeout if watch else None))


@app.command()
def pause(
    name: Name = None, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Replace no more pods until `resume`; scaling goes on."""
    from pdcluster_operator.cli.rollout_actions import set_paused
    from pdcluster_operator.cli.session import Place, in_session

    in_session(Place(namespace, context, kubeconfig), lambda session: set_paused(session, name, paused=True))


@app.command()
def resume(
    name: Name = None, namespace: Namespace = None, context: Context = None, kubeconfig: Kubeconfig = None
) -> None:
    """Go on after `pause`."""
    from pdcluster_operator.cli.rollout_actions import set_paused
    from pdcluster_operator.cli.session import Place, in_session

    in_session(Place(namespace, context, kubeconfig), lambda session: set_paused(session, name, paused=False))


@app.command()
def undo(
    name: Name = None,
    namespace: Namespace = None,
    to_revision: Annotated[
        int | None,
        typer.Option(min=1, help="a number of `history`; without it, the one before", show_default=False),
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put an earlier revision's spec of the workers back into the PDCluster."""
    from pdcluster_operator.cli.rollout_actions import undo as take_back
    from pdcluster_operator.cli.session import Place, in_session

    in_session(Place(namespace, context, kubeconfig), lambda session: take_back(session, name, to_revision))


@app.command()
def history(
    name: Name = None,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List the revisions that are kept, and what each changed."""
    from pdcluster_operator.cli.rollout_actions import show_history
    from pdcluster_operator.cli.session import Place, in_session

    in_session(Place(namespace, context, kubeconfig), lambda session: show_history(session, name, output))
