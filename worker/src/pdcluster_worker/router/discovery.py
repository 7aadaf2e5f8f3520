"""Where the workers are: a static list, or the pods of a cluster."""

from collections.abc import Awaitable, Callable

from pdcluster_worker.router.config import RouterConfig, StaticWorker

SetWorkers = Callable[[tuple[StaticWorker, ...]], Awaitable[None]]
SetGone = Callable[[frozenset[str]], None]


async def discover(config: RouterConfig, set_workers: SetWorkers, set_gone: SetGone) -> None:
    """Calls `set_workers` with the full list at every change, `set_gone` with the names of deleted pods that have not
    come back. Returns when there can be no change."""
    if config.workers or not config.cluster:
        await set_workers(config.workers)
        return
    # Local mode never needs it, and the import takes half a second.
    from pdcluster_worker.router.discovery_kubernetes import watch_cluster

    await watch_cluster(config.cluster, config.revision, set_workers, set_gone)
