"""What was made at the start is out of the collector's sight; what comes later is still collected."""

import gc
import subprocess
import sys

PROGRAM = """
import gc
from pdcluster_worker.memory import settle
settle()
assert gc.get_freeze_count() > 1000
class Ring: pass
ring = Ring(); ring.self = ring
import weakref
gone = weakref.ref(ring)
del ring
[[] for _ in range(100_000)]
kept = [[] for _ in range(100_000)]
assert gone() is None
"""


def test_cycles_are_still_found() -> None:
    assert gc.isenabled()
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
