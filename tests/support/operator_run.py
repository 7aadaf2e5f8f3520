"""Drives `pdc run --json` as a program would: reads its lines, kills its processes, stops it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import psutil
import yaml

FAKE = (sys.executable, str(Path(__file__).with_name("operator_fake_run.py")))
REAL = (sys.executable, "-m", "pdcluster_operator.cli.main")


def write_manifest(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "pdcluster.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


class LocalRun:
    """One `pdc run --json`. Use as a context: at the end nothing of it is left, or the test fails."""

    def __init__(self, program: tuple[str, ...], file: Path, *arguments: str) -> None:
        self._lines: Queue[str] = Queue()
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with this object
        command = [*program, "run", "-f", str(file), "--json", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._seen: dict[int, psutil.Process] = {}

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def next_line(self, limit: float = 30.0) -> dict[str, Any]:
        """The next line on stdout; fails with what stands on stderr when there is none."""
        try:
            line = self._lines.get(timeout=limit)
        except Empty:
            raise AssertionError(f"no line within {limit} s:\n{self.errors()}") from None
        assert line, f"it ended:\n{self.errors()}"
        self._remember()
        found: dict[str, Any] = json.loads(line)
        return found

    def more_lines(self) -> list[str]:
        """After the end: what was not read."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        return [line for line in lines if line]

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()

    def kill(self, line: dict[str, Any], name: str) -> None:
        os.kill(pid_of(line, name), signal.SIGKILL)

    def wait(self, limit: float = 15.0) -> int:
        return self.process.wait(limit)

    def left(self, limit: float = 2.0) -> list[psutil.Process]:
        """Processes it ever had, at any depth, that still live after `limit` seconds."""
        return psutil.wait_procs([*self._seen.values()], timeout=limit)[1]

    def _remember(self) -> None:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            self._seen[child.pid] = child

    def __enter__(self) -> "LocalRun":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            finally:
                self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()


def pid_of(line: dict[str, Any], name: str) -> int:
    return next(int(entry["pid"]) for entry in line["processes"] if entry["name"] == name)
