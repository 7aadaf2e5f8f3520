"""The folder of a worker's sockets: private, short enough for a socket's path, and left by nobody for long.

A worker that is killed cannot remove its folder, so each start removes those whose process is gone.
"""

import os
import shutil
import tempfile
from pathlib import Path

import psutil

PREFIX = "pdcluster-ipc-"


def make_socket_folder() -> Path:
    """A new folder that only this user can enter; the caller removes it."""
    root = Path(tempfile.gettempdir())
    for stale in root.glob(f"{PREFIX}*"):
        _remove_if_orphaned(stale)
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))


def socket_addresses(folder: Path, rank: int) -> tuple[str, str]:
    """(plan socket, report socket) of one rank."""
    return f"ipc://{folder}/plan-{rank}", f"ipc://{folder}/report-{rank}"


def _remove_if_orphaned(folder: Path) -> None:
    process = folder.name.removeprefix(PREFIX).partition("-")[0]
    if process.isdigit() and not psutil.pid_exists(int(process)) and _is_mine(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _is_mine(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False
