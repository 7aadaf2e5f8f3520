"""Runs every benchmark, one after another, and writes what they measured into RESULTS.md beside this file.

Each runs in a process of its own and prints one JSON object as its last line; those lines are kept in a folder, so that
one benchmark can be run again and the page be written from all.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE = HERE / "RESULTS.md"
NAMES = ("cpu", "prepare", "starved", "seed", "step", "transfer", "stream", "operator")
LIMIT = 3600.0
"""Seconds for one benchmark."""

Result = Mapping[str, Any]


def measure(name: str, folder: Path) -> None:
    """Keeps the result, with the seconds that it took; raises CalledProcessError when the benchmark fails."""
    print(f"== {name}", file=sys.stderr, flush=True)
    started = time.monotonic()
    command = [sys.executable, str(HERE / f"bench_{name}.py")]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=LIMIT)
    result = json.loads(answer.stdout.splitlines()[-1])
    result["took_seconds"] = round(time.monotonic() - started)
    (folder / f"{name}.json").write_text(json.dumps(result))


def page(results: list[Result]) -> str:
    """RESULTS.md: the machine, every target with its figure, every figure."""
    machine = results[0]["machine"]
    lines = [
        "# Results of one full run",
        "",
        "Written by `make bench` (each benchmark also by itself: `make bench-NAME`; `QUICK=1` for a small run). Ratios",
        "are of figures of the same run; plain rates and seconds say something of this machine only.",
        "",
        f"Machine: {machine['cpu']}, {machine['cores']} cores with {machine['simd']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, Linux {machine['kernel']}, Python {machine['python']}, "
        "with nothing else running.",
        "",
        "| benchmark | figure | measured | target | |",
        "|---|---|---|---|---|",
        *(line for result in results for line in _targets(result)),
    ]
    for result in results:
        lines += ["", f"## bench-{result['bench']}", "", f"{result['took_seconds']} s.", ""]
        lines += ["| figure | measured |", "|---|---|"]
        lines += [f"| {path} | {_shown(value)} |" for path, value in flat(result["figures"])]
    return "\n".join(lines) + "\n"


def _targets(result: Result) -> Iterator[str]:
    figures = dict(flat(result["figures"]))
    for path, bounds in result["targets"].items():
        ((bound, limit),) = bounds.items()
        met = "met" if result["met"][path] else "**not met**"
        told = f"{bound.replace('_', ' ')} {_shown(limit)}"
        yield f"| {result['bench']} | {path} | {_shown(figures.get(path))} | {told} | {met} |"


def flat(figures: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number with its path, dotted."""
    if isinstance(figures, dict):
        for key, value in figures.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, figures


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which to run now, of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("PDC_CACHE", ".cache")) / "bench")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or NAMES:
        measure(name, options.folder)
    kept = [options.folder / f"{name}.json" for name in NAMES]
    PAGE.write_text(page([json.loads(path.read_text()) for path in kept if path.exists()]))


if __name__ == "__main__":
    main()
