"""`pdc run` with pretended pods: the same command line, another program behind it."""

import dataclasses
import sys
from pathlib import Path

import pdcluster_operator.cli.run as command
from pdcluster_operator.cli.main import main
from pdcluster_operator.local.run import RunOptions, run

PROGRAM = (sys.executable, str(Path(__file__).with_name("operator_fake_pod.py")))


def run_fakes(options: RunOptions) -> None:
    run(dataclasses.replace(options, program=PROGRAM))


if __name__ == "__main__":
    command.run_here = run_fakes
    main()
