"""What every benchmark prints: a table for people on stderr, one JSON object on the last line of stdout."""

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Figure: TypeAlias = "float | int | str | Mapping[str, Figure] | None"
QUICK = os.environ.get("QUICK", "") not in ("", "0")


@dataclass(frozen=True, slots=True)
class Target:
    """`figure` is a dotted path into the figures; the value must be at least, or at most, `bound`."""

    figure: str
    relation: str
    bound: float

    def __post_init__(self) -> None:
        assert self.relation in ("at_least", "at_most")

    def is_met(self, figures: Figure) -> bool:
        value = lookup(figures, self.figure)
        if not isinstance(value, int | float):
            return False
        return value >= self.bound if self.relation == "at_least" else value <= self.bound


def at_least(figure: str, bound: float) -> Target:
    return Target(figure, "at_least", bound)


def at_most(figure: str, bound: float) -> Target:
    return Target(figure, "at_most", bound)


def lookup(figures: Figure, path: str) -> Figure:
    """None where the path leads nowhere."""
    for name in path.split("."):
        if not isinstance(figures, Mapping) or name not in figures:
            return None
        figures = figures[name]
    return figures


def machine() -> dict[str, str | int]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "")
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "simd": "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "",
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def say(text: str) -> None:
    """For people."""
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Aligned columns on stderr; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *cells]) for column in range(len(header))]
    say("  ".join(name.ljust(width) for name, width in zip(header, widths, strict=True)))
    for row, values in zip(cells, rows, strict=True):
        parts = [
            text.rjust(width) if isinstance(value, int | float) else text.ljust(width)
            for text, value, width in zip(row, values, widths, strict=True)
        ]
        say("  ".join(parts))


def finish(bench: str, figures: Mapping[str, Figure], targets: Sequence[Target]) -> None:
    """The verdicts for people, then the JSON line."""
    for target in targets:
        value = _cell(lookup(figures, target.figure))
        verdict = "met" if target.is_met(figures) else "NOT MET"
        say(f"target: {target.figure} {target.relation.replace('_', ' ')} {target.bound:g}: {value}, {verdict}")
    line = {
        "bench": bench,
        "machine": machine(),
        "figures": figures,
        "targets": {target.figure: {target.relation: target.bound} for target in targets},
        "met": {target.figure: target.is_met(figures) for target in targets},
    }
    print(json.dumps(line), flush=True)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
