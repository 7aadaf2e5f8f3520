"""The client of `pdc chat`, against a transport that is scripted."""

import json

import httpx
import pytest

from pdcluster_operator.cli.client import ChatClient, Message, Piece, Stages
from pdcluster_operator.cli.conversation import printable, stage_line
from pdcluster_operator.errors import EndpointError


def client(handler, monkeypatch):
    original = httpx.Client
    monkeypatch.setattr(
        httpx, "Client", lambda **settings: original(**settings, transport=httpx.MockTransport(handler))
    )
    return ChatClient("http://127.0.0.1:1/v1/", "key")


def events(*chunks):
    return "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks)


def piece(text):
    return {"choices": [{"delta": {"content": text}}]}


def test_pieces_and_stages(monkeypatch):
    last = {"choices": [], "pdcluster": {"stages": {"queue": 0.001, "note": "x"}, "prefill_worker": "p"}}
    seen = []

    def handler(request):
        seen.append((request.url.path, json.loads(request.content), request.headers["authorization"]))
        role = {"choices": [{"delta": {"role": "assistant"}}]}
        return httpx.Response(200, text=": comment\n\n" + events(role, piece("Pa"), piece("ris"), last, "[DONE]"))

    with client(handler, monkeypatch) as chat:
        found = list(chat.stream("m", [Message("user", "?")], max_tokens=3))
    assert found == [Piece("Pa"), Piece("ris"), Stages({"queue": 0.001}, "p", "")]
    path, body, authorization = seen[0]
    assert path == "/v1/chat/completions"
    assert authorization == "Bearer key"
    assert body["return_stages"] is True
    assert body["max_tokens"] == 3


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (httpx.Response(400, json={"error": {"message": "max_tokens is too large"}}), "400: max_tokens is too large"),
        (httpx.Response(502, text="<html>"), "502: <html>"),
        (httpx.Response(200, text=events(piece("a"), {"error": {"message": "worker lost"}})), "broke off: worker lost"),
        (httpx.Response(200, text=events("{")), "not understood"),
        (httpx.Response(200, text=events("[]")), "not understood"),
    ],
)
def test_errors_are_one_sentence(response, message, monkeypatch):
    with client(lambda _: response, monkeypatch) as chat, pytest.raises(EndpointError, match=message):
        list(chat.stream("m", [Message("user", "?")]))


def test_nobody_listens(monkeypatch):
    def refuse(request):
        raise httpx.ConnectError("refused", request=request)

    with (
        client(refuse, monkeypatch) as chat,
        pytest.raises(EndpointError, match=r"no answer from http://127\.0\.0\.1:1"),
    ):
        chat.first_model()


@pytest.mark.parametrize("body", [{}, {"data": []}, [], {"data": [{}]}])
def test_the_first_model(body, monkeypatch):
    with (
        client(lambda _: httpx.Response(200, json=body), monkeypatch) as chat,
        pytest.raises(EndpointError, match="does not answer as an OpenAI server"),
    ):
        chat.first_model()


def test_the_line_of_stages():
    stages = Stages({"queue": 0.0002, "prefill": 0.031, "first_token": 0.04, "decode": 1.5}, "p-0", "d-1")
    assert stage_line(stages) == "queue 0.2 ms · prefill 31 ms on p-0 · first token 40 ms · decode 1.50 s on d-1"
    assert stage_line(Stages()) == ""


def test_answers_give_the_terminal_no_commands():
    assert printable("a\x1b[31mb\tc\nd é 中") == "a\ufffd[31mb\tc\nd é 中"
