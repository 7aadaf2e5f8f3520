"""`python -m pdcluster_worker worker|router|executor`."""

import sys

from pdcluster_worker.cli import main

if __name__ == "__main__":
    sys.exit(main())
