"""The command line itself: what there is, how quickly it starts, and that wrong usage is told as such."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pdcluster_operator.cli.app import app

HEAVY = ("kubernetes", "pydantic", "aiohttp", "grpc", "kopf", "httpx", "yaml")


@pytest.mark.parametrize(
    "command",
    [
        (),
        *(((name,)) for name in ("run", "chat", "validate", "status", "why", "drain", "resume", "preflight")),
        *(("rollout", name) for name in ("status", "pause", "resume", "undo", "history")),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(command):
    answer = CliRunner().invoke(app, [*command, "--help"])
    assert answer.exit_code == 0, answer.output
    assert "Usage:" in answer.output


def test_help_loads_nothing_that_takes_long():
    program = f"import sys, pdcluster_operator.cli.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "wrong",
    [
        ("why",),
        ("drain",),
        ("status", "-o", "xml"),
        ("rollout", "undo", "--to-revision", "0"),
        ("drain", "p", "--timeout", "0"),
    ],
)
def test_wrong_usage_is_2(wrong):
    assert CliRunner().invoke(app, list(wrong)).exit_code == 2


def test_shells_complete_commands():
    question = {**os.environ, "_PDC_COMPLETE": "complete_bash", "COMP_WORDS": "pdc ro", "COMP_CWORD": "1"}
    program = str(Path(sys.executable).with_name("pdc"))
    done = subprocess.run([program], env=question, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["rollout"]
