"""`pdc run` with pretended pods: the same command line, another program behind it."""

import sys
from pathlib import Path

from pdcluster_operator.cli.main import main

PROGRAM = (sys.executable, str(Path(__file__).with_name("operator_fake_pod.py")))


def pretend() -> None:
    """Imported late, as in the command itself."""
    import dataclasses

    from pdcluster_operator.local import run as local

    real = local.run
    local.run = lambda options: real(dataclasses.replace(options, program=PROGRAM))


if __name__ == "__main__":
    pretend()
    main()
