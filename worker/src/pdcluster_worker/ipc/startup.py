"""How an executor process is started: its command line, its environment, its settings as JSON."""

import os
import sys
from pathlib import Path

import msgspec

from pdcluster_worker.config import ExecutorConfig
from pdcluster_worker.errors import ConfigError

PARENT_VARIABLE = "PDC_EXECUTOR_PARENT"
"""The engine's process id: an executor whose engine died before it could ask to die with it ends at once."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SPIN_VARIABLE, SPIN = "OPENBLAS_THREAD_TIMEOUT", "18"
"""How long an idle thread of a matrix product keeps its core: 2^18 cycles. The default of 2^26 is 27 ms, which it takes
from the threads that compute all else."""


def command_line(config: ExecutorConfig) -> list[str]:
    """The module is started directly: the command line of all roles would import what an executor does not need."""
    return [sys.executable, "-m", "pdcluster_worker.executor", "--config", encode_config(config)]


def environment(config: ExecutorConfig) -> dict[str, str]:
    """Threads are counted when the arithmetic libraries load: too late inside the process."""
    variables = dict(os.environ)
    variables[PARENT_VARIABLE] = str(os.getpid())
    variables.setdefault(SPIN_VARIABLE, SPIN)
    if config.threads is not None:
        variables.update(dict.fromkeys(THREAD_VARIABLES, str(config.threads)))
    return variables


def encode_config(config: ExecutorConfig) -> str:
    return msgspec.json.encode(config, enc_hook=str).decode()


def decode_config(text: str) -> ExecutorConfig:
    """Raises ConfigError naming the field."""
    try:
        return msgspec.json.decode(text, type=ExecutorConfig, dec_hook=_decode_path)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"--config: {error}") from error


def _decode_path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ConfigError(f"--config: {value!r} is no {kind.__name__}")
