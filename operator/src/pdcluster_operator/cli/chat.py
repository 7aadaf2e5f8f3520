"""`pdc chat`: talk to an endpoint from a terminal."""

from typing import Annotated

import typer

DEFAULT_ENDPOINT = "http://127.0.0.1:8000"


def chat(
    message: Annotated[str | None, typer.Argument(help="one question; without it, a conversation")] = None,
    endpoint: Annotated[str, typer.Option(help="of a running PDCluster")] = DEFAULT_ENDPOINT,
    model: Annotated[str | None, typer.Option(help="its name; without it, the first that is served")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="of an answer; without it, the rest of the context")
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="also read from PDC_API_KEY", envvar="PDC_API_KEY")] = None,
) -> None:
    """Ask a question, or hold a conversation, with the stages of each answer under it."""
    from pdcluster_operator.cli.client import ChatClient
    from pdcluster_operator.cli.conversation import talk

    parameters = {} if max_tokens is None else {"max_tokens": max_tokens}
    with ChatClient(endpoint, api_key or "") as client:
        talk(client, model, message, parameters)
