"""`pdc chat`: talk to an endpoint from a terminal."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from pdcluster_operator.cli.client import ChatClient, Message, Piece, Stages

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
    console = Console(highlight=False)
    parameters = {} if max_tokens is None else {"max_tokens": max_tokens}
    with ChatClient(endpoint, api_key or "") as client:
        name = model or client.first_model()
        if message is not None:
            answer(client, console, name, [Message("user", message)], parameters)
        else:
            converse(client, console, name, parameters)


def converse(client: ChatClient, console: Console, model: str, parameters: dict[str, int]) -> None:
    """Until the end of input or Ctrl-C. Each question is a line; earlier ones and their answers go along."""
    history: list[Message] = []
    while (question := _read_line()) is not None:
        if question.strip():
            history.append(Message("user", question))
            history.append(Message("assistant", answer(client, console, model, history, parameters)))


def answer(
    client: ChatClient, console: Console, model: str, messages: list[Message], parameters: dict[str, int]
) -> str:
    """Print one answer while it comes, and its stages; return its text."""
    text = ""
    stages = Stages()
    for piece in client.stream(model, messages, **parameters):
        if isinstance(piece, Piece):
            text += piece.text
            sys.stdout.write(printable(piece.text))
            sys.stdout.flush()
        else:
            stages = piece
    sys.stdout.write("\n")
    if line := stage_line(stages):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    return text


def printable(text: str) -> str:
    """Without control characters: a model's words are no commands to the terminal."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)


def stage_line(stages: Stages) -> str:
    """`queue 0.2 ms · prefill 31 ms on demo-prefill-0 · decode 210 ms on demo-decode-1`; empty if nothing is known."""
    places = {"prefill": stages.prefill_worker, "decode": stages.decode_worker}
    parts = []
    for name, seconds in stages.seconds.items():
        place = f" on {places[name]}" if places.get(name) else ""
        parts.append(f"{name.replace('_', ' ')} {_duration(seconds)}{place}")
    return " · ".join(parts)


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"


def _read_line() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        if sys.stdin.isatty():
            sys.stdout.write(os.linesep)
        return None
