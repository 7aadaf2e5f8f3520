"""The file system that a container's process sees: this host's, read-only, with the pod's volumes at their mount paths.

Nothing is ever created on the host: where a mount point does not exist there, its parents are rebuilt inside the
sandbox from links and binds.
"""

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Mount:
    """One volume mount of a container: a host folder or file, and where it appears."""

    source: Path
    target: Path
    read_only: bool


def bwrap() -> str:
    """The bubblewrap program; raises FileNotFoundError when it is not installed."""
    found = shutil.which("bwrap")
    if found is None:
        raise FileNotFoundError("bwrap is not on PATH: install the package bubblewrap")
    return found


def arguments(mounts: Sequence[Mount], working_folder: str) -> list[str]:
    """The sandbox's command line, up to the command: its process is PID 1 of a name space and dies with the agent."""
    targets = {Path(os.path.realpath(mount.target)): mount for mount in mounts}
    made = {parent for target in targets for parent in target.parents if not target.exists()} - {Path("/")}
    line = ["--tmpfs", "/", *_tree(Path("/"), made, set(targets))]
    line += ["--dev-bind", "/dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
    for target, mount in sorted(targets.items()):
        line += ["--ro-bind" if mount.read_only else "--bind", str(mount.source), str(target)]
    line += [part for path in _hidden() for part in ("--ro-bind", str(path), str(path))]
    return [*line, "--unshare-pid", "--as-pid-1", "--die-with-parent", "--chdir", working_folder]


OWN = {Path("/dev"), Path("/proc"), Path("/tmp")}
CHECKOUT = Path(__file__).resolve().parents[2]


def _hidden() -> list[Path]:
    """The checkout and its environment, where the pods' programs are, if they lie below a folder that pods have new."""
    return [path for path in (CHECKOUT, Path(sys.prefix).resolve()) if OWN & set(path.parents)]


def _tree(folder: Path, made: set[Path], targets: set[Path]) -> Iterator[str]:
    """Binds of everything in a folder of the host, one level deeper below the folders in `made`."""
    entries = sorted(Path(entry.path) for entry in os.scandir(folder)) if folder.is_dir() else []
    for entry in entries:
        if entry in OWN or (entry in targets and entry not in made):
            continue
        if entry in made:
            yield from ("--dir", str(entry))
            yield from _tree(entry, made, targets)
        elif entry.is_symlink():
            yield from ("--symlink", str(entry.readlink()), str(entry))
        else:
            yield from ("--ro-bind", str(entry), str(entry))
