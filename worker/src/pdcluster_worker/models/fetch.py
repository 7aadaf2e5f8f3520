"""A checkpoint from a Hugging Face hub into a folder: at one commit, resumed where it broke off, every byte checked.

What the hub says about a commit (sizes, SHA-256 of large files, git's hash of small ones) is the only measure. A file
appears under its name when it is whole and right; until then it grows as `.partial-DIGEST`, which a later start goes
on with. Files that are there are checked again: the folder may be older than this process.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import structlog
from httpx2 import HTTPError
from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils.tqdm import disable_progress_bars

from pdcluster_worker.errors import CheckpointError

log = structlog.get_logger(__name__)

WEIGHTS = ".safetensors"
SUFFIXES = frozenset({WEIGHTS, ".json", ".txt", ".model", ".jinja", ".tiktoken"})
CHUNK = 1 << 20
AT_ONCE = 4
API_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a commit. `digest` is SHA-256 of the content, or git's hash of it as a blob."""

    name: str
    size: int
    digest: str
    is_blob: bool

    def hasher(self) -> "hashlib._Hash":
        if not self.is_blob:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)

    def is_at(self, path: Path) -> bool:
        """Whether the file at `path` is this one, to the last byte."""
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        hasher = self.hasher()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                hasher.update(chunk)
        return hasher.hexdigest() == self.digest


def fetch(repo: str, revision: str, folder: Path, *, with_weights: bool = True) -> str:
    """Returns the commit. Raises CheckpointError saying what the hub, the network or the disk refused."""
    disable_progress_bars()
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=API_SECONDS)
        commit = info.sha or ""
        wanted = chosen(repo, info.siblings or (), with_weights=with_weights)
        missing = [entry for entry in wanted if not entry.is_at(folder / entry.name)]
        log.info("fetching", repo=repo, commit=commit, files=len(wanted), missing=len(missing))
        _check_room(missing, folder)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda entry: _fetch_one(repo, commit, entry, folder), missing))
    except (HTTPError, HFValidationError, OSError) as error:
        raise CheckpointError(f"{repo} at {revision}: {error}") from error
    _sweep(folder)
    return commit


def chosen(repo: str, siblings: Iterable[RepoSibling], *, with_weights: bool) -> list[Entry]:
    """What a worker reads of a repository, or a router, which needs no weights. Raises CheckpointError."""
    names = [sibling for sibling in siblings if _is_wanted(sibling.rfilename, with_weights=with_weights)]
    if with_weights and not any(sibling.rfilename.endswith(WEIGHTS) for sibling in names):
        raise CheckpointError(f"{repo} holds no {WEIGHTS} file")
    return [_entry(repo, sibling) for sibling in names]


def _is_wanted(name: str, *, with_weights: bool) -> bool:
    path = PurePosixPath(name)
    if len(path.parts) != 1 or name.startswith(".") or path.suffix not in SUFFIXES:
        return False
    return with_weights or path.suffix != WEIGHTS


def _entry(repo: str, sibling: RepoSibling) -> Entry:
    if sibling.size is None or not (sibling.lfs or sibling.blob_id):
        raise CheckpointError(f"{repo}: the hub gives no size and checksum for {sibling.rfilename}")
    if sibling.lfs:
        return Entry(sibling.rfilename, sibling.lfs.size, sibling.lfs.sha256, is_blob=False)
    return Entry(sibling.rfilename, sibling.size, sibling.blob_id or "", is_blob=True)


def _fetch_one(repo: str, commit: str, entry: Entry, folder: Path) -> None:
    """Adds what is missing, then checks all of it; what is wrong is thrown away, so that a restart begins anew."""
    partial = folder / f".partial-{entry.digest}"
    with partial.open("ab") as file:
        have = file.tell()
        if have > entry.size:
            have = file.truncate(0)
        log.info("fetching_file", file=entry.name, size=entry.size, resumed_at=have)
        url = hf_hub_url(repo, entry.name, revision=commit)
        http_get(url, file, resume_size=have, headers=_headers(), expected_size=entry.size)
    if not entry.is_at(partial):
        partial.unlink()
        raise CheckpointError(f"{repo}: {entry.name} does not have the hub's checksum {entry.digest}")
    partial.replace(folder / entry.name)


def _headers() -> dict[str, str]:
    token = get_token()
    return {"authorization": f"Bearer {token}"} if token else {}


def _check_room(missing: Iterable[Entry], folder: Path, free: Callable[[Path], int] | None = None) -> None:
    """Better now than after an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    partials = (folder / f".partial-{entry.digest}" for entry in missing)
    have = sum(partial.stat().st_size for partial in partials if partial.exists())
    needed = sum(entry.size for entry in missing) - have
    room = shutil.disk_usage(folder).free if free is None else free(folder)
    if needed > room:
        raise CheckpointError(f"{folder} has {room} bytes free, the checkpoint needs {needed} more")


def _sweep(folder: Path) -> None:
    """Partial files of another commit."""
    for partial in folder.glob(".partial-*"):
        partial.unlink()
