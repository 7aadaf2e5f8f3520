"""Becomes another program that dies when its parent does. Run as a script, without site packages, to be quick.

    python -I -S launch.py PARENT_PID PROGRAM ARGUMENT...

The process id stays, so whoever started this supervises the program itself.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, argv: list[str]) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # It died before the request above.
        sys.exit(1)
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
