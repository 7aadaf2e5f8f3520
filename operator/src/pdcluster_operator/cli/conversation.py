"""Questions and streamed answers in a terminal, with the stages of each answer on one line under it."""

import os
import sys

from rich.console import Console

from pdcluster_operator.cli.client import ChatClient, Message, Piece, Stages


def talk(client: ChatClient, model: str | None, question: str | None, parameters: dict[str, int]) -> None:
    """One question, or a conversation where there is none."""
    console = Console(highlight=False)
    name = model or client.first_model()
    if question is None:
        converse(client, console, name, parameters)
    else:
        answer(client, console, name, [Message("user", question)], parameters)


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
