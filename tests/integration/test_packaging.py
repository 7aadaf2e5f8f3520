"""What the images are made of: nothing runs on a distribution that only the development tools bring along."""

import subprocess
import sys
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOADED = """
import sys
from importlib.metadata import packages_distributions
before = set(sys.modules)
{imports}
files = {{name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}}
loaded = {{name.partition(".")[0] for name, file in files.items() if file and "/_vendor/" not in file}}
known = packages_distributions()
print(*{{",".join(known[name]) for name in loaded if name in known}})
"""
WORKER = "import paddle, pdcluster_worker.cli, pdcluster_worker.executor.paddle_runner, nixl_cu12, transformers"
OPERATOR = (
    "import pdcluster_operator.__main__, pdcluster_operator.cli.main, pdcluster_operator.scaling.adapter.__main__"
)

TAKEN_ALONG = {"grpcio-tools", "grpcio-health-checking", "sniffio"}
"""gRPC and httpcore import them where they are there, and do without where they are not."""


def closure(name: str, extra: str = "") -> set[str]:
    """All distributions that this one asks for, directly or not."""
    found: set[str] = set()
    waiting = [(canonicalize_name(name), frozenset({extra}))]
    while waiting:
        current, extras = waiting.pop()
        found.add(current)
        for line in distribution(current).requires or []:
            asked = Requirement(line)
            holds = asked.marker is None or any(asked.marker.evaluate({"extra": one}) for one in {*extras, ""})
            following = canonicalize_name(asked.name)
            if holds and following not in found and _is_installed(following):
                waiting.append((following, frozenset(asked.extras)))
    return found


def _is_installed(name: str) -> bool:
    try:
        return distribution(name) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(
    ("name", "extra", "imports"),
    [("pdcluster-worker", "cpu", WORKER), ("pdcluster-operator", "", OPERATOR)],
    ids=["worker", "operator"],
)
def test_a_program_loads_only_what_it_asks_for(name: str, extra: str, imports: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", LOADED.format(imports=imports)], capture_output=True, text=True, timeout=120, check=True
    )
    asked = closure(name, extra)
    # A module's name may be shared by several distributions, as `google` is.
    loaded = [entry.split(",") for entry in answer.stdout.splitlines()[-1].split()]
    assert [entry for entry in loaded if not {canonicalize_name(part) for part in entry} & (asked | TAKEN_ALONG)] == []
