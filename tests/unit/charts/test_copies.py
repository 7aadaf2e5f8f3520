"""What is a copy of something else is an exact one, and Dockerfiles name files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_the_chart_has_the_definitions_of_the_typed_model() -> None:
    source, copy = ROOT / "manifests" / "crd", ROOT / "charts" / "pdcluster" / "definitions"

    assert {path.name: path.read_text() for path in copy.iterdir()} == {
        path.name: path.read_text() for path in source.iterdir()
    }


@pytest.mark.parametrize("member", ["operator", "worker"])
def test_an_image_is_built_from_what_there_is_and_runs_as_nobody(member: str) -> None:
    text = (ROOT / member / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)

    assert [path for line in copied for path in line.split() if not (ROOT / path).exists()] == []
    assert text.count("FROM python:3.11-slim") == 2
    assert "USER 65532:65532" in text
