"""Chooses the runner. Paddle is imported only where it computes: the import takes seconds."""

from collections.abc import Callable

from pdcluster_worker.config import ExecutorConfig, RunnerKind
from pdcluster_worker.executor.runner import ModelRunner


def make_runner(config: ExecutorConfig, on_progress: Callable[[float], None]) -> ModelRunner:
    """Loads the model; `on_progress` hears the share loaded so far. Raises WorkerErrors."""
    if config.engine.runner is RunnerKind.SIMULATED:
        from pdcluster_worker.executor.simulated_runner import SimulatedRunner

        return SimulatedRunner(config, on_progress)
    from pdcluster_worker.executor.paddle_environment import prepare

    prepare(config.threads)
    from pdcluster_worker.executor.paddle_runner import PaddleRunner

    return PaddleRunner(config, on_progress)
