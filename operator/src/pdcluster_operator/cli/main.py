"""The `pdc` command: how signals and errors reach people. The commands themselves are in app.py.

Only the standard library is imported before signals are in hand: a program that was asked to stop while it starts
should end as quietly as later.
"""

import os
import signal
import sys


def main() -> None:
    """Errors made on purpose are one sentence on stderr and exit status 1; wrong usage is 2."""
    if sys.argv[1:2] == ["run"]:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
    from pdcluster_operator.cli.app import app
    from pdcluster_operator.errors import OperatorError

    try:
        app()
    except OperatorError as error:
        print(f"pdc: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _leave(number: int, frame: object) -> None:
    """Asked to stop before anything was started: that is done."""
    os._exit(0)


if __name__ == "__main__":
    main()
