"""Where the workers are: a static list, or the pods of a cluster. Never by readiness: see ARCHITECTURE.md."""

from collections.abc import Awaitable, Callable

from pdcluster_worker.router.config import RouterConfig, StaticWorker

SetWorkers = Callable[[tuple[StaticWorker, ...]], Awaitable[None]]


async def discover(config: RouterConfig, set_workers: SetWorkers) -> None:
    """Calls `set_workers` with the full list at every change; ends only when there can be none."""
    await set_workers(config.workers)
