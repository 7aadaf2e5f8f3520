"""`fetch`: a checkpoint into a folder, before a worker or a router starts: the init container of their pods."""

from pathlib import Path
from typing import Annotated

import structlog
import typer

log = structlog.get_logger(__name__)


def fetch(
    repo: Annotated[str, typer.Option(help="OWNER/NAME on the hub (HF_ENDPOINT, HF_TOKEN)")],
    to: Annotated[Path, typer.Option(help="the folder")],
    revision: Annotated[str, typer.Option(help="a commit; a branch or tag means its commit at this moment")] = "main",
    weights: Annotated[bool, typer.Option(help="a router needs none")] = True,
) -> int:
    """Download a checkpoint; what is there and right already is kept."""
    from pdcluster_worker.models.fetch import fetch as run

    log.info("starting", repo=repo, revision=revision)
    commit = run(repo, revision, to, with_weights=weights)
    log.info("fetched", repo=repo, commit=commit)
    return 0
