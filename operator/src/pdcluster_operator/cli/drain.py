"""`pdc drain` and `pdc resume`: one worker pod out of service, and back."""

from typing import Annotated

import typer

from pdcluster_operator.cli.options import Context, Kubeconfig, Namespace

Pod = Annotated[str, typer.Argument(help="name of a prefill, decode or mixed pod", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="return when it is done")]
Timeout = Annotated[float, typer.Option(min=0.1, help="seconds to wait; then the exit status is 1")]


def drain(
    pod: Pod,
    namespace: Namespace = None,
    wait: Wait = True,
    timeout: Timeout = 600.0,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Drain a worker: it takes no new requests, ends or hands over its own, and stays out until resumed or deleted."""
    from pdcluster_operator.cli.drain_pod import ask
    from pdcluster_operator.cli.session import Place, in_session

    in_session(Place(namespace, context, kubeconfig), lambda session: ask(session, pod, timeout if wait else None))


def resume(
    pod: Pod,
    namespace: Namespace = None,
    wait: Wait = True,
    timeout: Timeout = 60.0,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put a drained worker back into service."""
    from pdcluster_operator.cli.drain_pod import take_back
    from pdcluster_operator.cli.session import Place, in_session

    in_session(
        Place(namespace, context, kubeconfig), lambda session: take_back(session, pod, timeout if wait else None)
    )
