"""`python -m pdcluster_worker.executor --config JSON`: started by the engine (`ipc/startup.py`)."""

import argparse
import sys

from pdcluster_worker import logs
from pdcluster_worker.executor.process import run_executor
from pdcluster_worker.ipc.startup import decode_config


def main() -> int:
    parser = argparse.ArgumentParser(description="One rank of a worker: the model, its KV cache, its transfers.")
    parser.add_argument("--config", required=True, help="settings as JSON, made by the engine")
    config = decode_config(parser.parse_args().config)
    logs.configure(component="executor", rank=str(config.rank))
    return run_executor(config)


if __name__ == "__main__":
    sys.exit(main())
