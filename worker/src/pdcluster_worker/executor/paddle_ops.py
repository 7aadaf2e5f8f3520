"""Chooses the operations of this executor's device and type."""

import os
from typing import Any

from pdcluster_worker.config import ExecutorConfig
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.models.config import ModelConfig
from pdcluster_worker.models.ops import Ops

DEVICE_TYPES = {"auto": "bfloat16", "bfloat16": "bfloat16", "float16": "float16"}


def make_ops(config: ExecutorConfig, model: ModelConfig) -> Ops[Any]:
    """Raises ConfigError for a type that the device does not compute in, or a device that is not there."""
    dtype = config.engine.dtype
    if config.gpu_count == 0:
        if dtype not in ("auto", "float32"):
            raise ConfigError(f"--dtype {dtype} is not supported on a CPU, which computes in float32")
        from pdcluster_worker.models.cpu_ops import CpuOps
        from pdcluster_worker.models.cpu_workers import Workers

        return CpuOps(model, Workers(config.threads or len(os.sched_getaffinity(0))))
    if dtype not in DEVICE_TYPES:
        raise ConfigError(f"--dtype {dtype} is not supported on a GPU; supported: {', '.join(DEVICE_TYPES)}")
    from pdcluster_worker.models.gpu_ops import GpuOps

    engine = config.engine
    return GpuOps(model, DEVICE_TYPES[dtype], config.rank, engine.memory_utilization, engine.max_batch_tokens)
