"""Everything for people, on stderr: progress while pods load, a table of what runs where, and what goes wrong."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TextIO, cast

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from pdcluster_operator.desired.pod import CPUShare
from pdcluster_operator.errors import LocalError
from pdcluster_operator.local.events import LogLine
from pdcluster_operator.local.lifecycle import PodState
from pdcluster_operator.local.output import without_waiting
from pdcluster_operator.local.pod import Pod
from pdcluster_operator.local.report import endpoint


class Screen:
    """On a terminal, bars; elsewhere a line per change. `folder`: where each pod's log goes, whole."""

    def __init__(self, folder: Path | None = None, verbose: bool = False, console: Console | None = None) -> None:
        self._console = console or _stderr()
        self._verbose = verbose
        self._is_up = False  # While pods load, routers complain that they do not answer.
        self._folder = folder
        self._files: dict[str, TextIO] = {}
        self._shown: dict[str, str] = {}
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None
        if folder is not None:
            _make(folder)

    def begin(self, pods: Sequence[Pod]) -> None:
        if not self._console.is_terminal:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=self._console, auto_refresh=False)
        self._progress.start()
        self._bars = {
            pod.plan.name: self._progress.add_task(pod.plan.name, total=1.0, state="starting") for pod in pods
        }

    def moved(self, pod: Pod) -> None:
        if self._progress is not None:
            self._progress.update(self._bars[pod.plan.name], completed=pod.fraction, state=pod.state.value)
            self._progress.refresh()
            return
        news = _news(pod)
        if news and self._shown.get(pod.plan.name) != news:
            self._shown[pod.plan.name] = news
            self.say(f"{pod.plan.name}: {news}")

    def heard(self, pod: Pod, raw: str) -> None:
        if self._folder is not None:
            self._log_file(pod.plan.name, self._folder).write(raw + "\n")

    def said(self, pod: Pod, line: LogLine) -> None:
        if self._verbose or (line.is_problem and self._is_up):
            self.say(f"{pod.plan.name}: {line.text}")

    def died(self, pod: Pod, reason: str, delay: float) -> None:
        when = f"in {delay:g} s" if delay else "at once"
        self.say(f"{pod.plan.name}: {reason}; it starts again {when}")

    def ready(self, pods: Sequence[Pod]) -> None:
        """The table, and how to use what runs."""
        self._is_up = True
        self._end_progress()
        titles = ("pod", "role", "pid", "gRPC", "metrics", "CPU")
        table = Table(*(Column(title, no_wrap=True) for title in titles), box=SIMPLE, pad_edge=False)
        for pod in pods:
            table.add_row(*_row(pod))
        self._console.print(table)
        router = next(pod for pod in pods if pod.plan.is_router)
        where = endpoint(router.plan)
        self.say(f"ready at {where}   (try: pdc chat --endpoint {where}; Ctrl-C stops everything)")

    def say(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._end_progress()
        for file in self._files.values():
            file.close()
        if self._console.file is not sys.stderr:
            self._console.file.close()

    def _end_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _log_file(self, name: str, folder: Path) -> TextIO:
        if name not in self._files:
            self._files[name] = (folder / f"{name}.log").open("a", buffering=1)
        return self._files[name]


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"--log-dir: cannot make {folder}: {error.strerror}") from error


def _stderr() -> Console:
    """As wide as the terminal; wide enough for the table where there is none."""
    console = Console(stderr=True)
    return console if console.is_terminal else Console(file=cast(IO[str], without_waiting(sys.stderr)), width=120)


def _news(pod: Pod) -> str:
    """What a line is worth, where there are no bars: each quarter of loading, and the ends."""
    if pod.state is PodState.STARTING and pod.fraction:
        return f"loading, {int(pod.fraction * 4) * 25} %"
    return f"{pod.state.value}, pid {pod.pid}" if pod.state in (PodState.STARTING, PodState.READY) else ""


def _row(pod: Pod) -> tuple[str, ...]:
    plan = pod.plan
    grpc = "" if plan.is_router else plan.advertise
    return (
        plan.name,
        plan.role,
        str(pod.pid),
        grpc,
        f":{plan.ports.metrics or plan.ports.http}/metrics",
        _cpu(plan.cpu),
    )


def _cpu(share: CPUShare | None) -> str:
    if share is None:
        return ""
    threads = f"{share.threads} thread{'s' if share.threads > 1 else ''}"
    return f"{threads} on {','.join(map(str, share.affinity))}" if share.affinity else threads
