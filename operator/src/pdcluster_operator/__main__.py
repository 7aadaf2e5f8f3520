"""`python -m pdcluster_operator`: the operator. It waits for the lease, acts while it has it, and ends without it."""

import asyncio
import gc
import sys
from collections.abc import Coroutine
from functools import partial
from typing import Any

import kopf
import structlog
from aiohttp import ClientSession

from pdcluster_operator import handlers
from pdcluster_operator.cache import Cache
from pdcluster_operator.child_watch import ChildWatch
from pdcluster_operator.desired.kubernetes_network import Origin
from pdcluster_operator.desired.kubernetes_pod import Release
from pdcluster_operator.drainer import Drainer
from pdcluster_operator.errors import OperatorError
from pdcluster_operator.expiry import ExpiryCollector
from pdcluster_operator.follow import Follower
from pdcluster_operator.intake import Intake
from pdcluster_operator.keyed_queue import KeyedQueue
from pdcluster_operator.kube import Kube, KubeError, connection
from pdcluster_operator.lease import Leadership
from pdcluster_operator.metrics import Metrics
from pdcluster_operator.observe import ClusterKey
from pdcluster_operator.optional import OptionalKinds
from pdcluster_operator.peers import PeerWatch, read_peers
from pdcluster_operator.process import listening, log_to_stderr, reasons, until_told_to_stop
from pdcluster_operator.reconcile.rotation import Periods
from pdcluster_operator.reconciler import Home, Reconciler, Surroundings
from pdcluster_operator.secrets_store import CertificateStore
from pdcluster_operator.settings import Settings, from_environment
from pdcluster_operator.shortages import Shortages

log = structlog.get_logger(__name__)

LEASE_NAME = "pdcluster-operator"
COLLECT_AFTER = (10_000, 20, 20)
"""What an event brings is mostly freed without the collector. By Python's thresholds it lives to see two collections,
so that a full one, over the facts of 1,000 PDClusters, stops everything for 0.3 s every 20 s and finds nothing."""


async def serve(settings: Settings) -> None:
    """Runs until cancelled; raises LeadershipLostError when the lease is gone."""
    metrics = Metrics()
    async with (
        # Also while another one leads.
        listening(metrics.application(), settings.host, settings.metrics_port),
        connection(settings.kubeconfig or None) as opened,
    ):
        unfenced = Kube(opened, remaining=lambda: float("inf"), timeout=settings.lease_seconds / 3)
        leadership = Leadership(
            unfenced, settings.namespace, LEASE_NAME, settings.identity, seconds=settings.lease_seconds
        )
        await leadership.acquire()
        log.info("leading", identity=settings.identity)
        metrics.leading.set(1)
        kube = Kube(opened, remaining=leadership.remaining, on_call=metrics.called)
        try:
            await _act(settings, kube, Follower(opened), leadership, metrics)
        finally:
            metrics.leading.set(0)
            await leadership.release()


async def _act(settings: Settings, kube: Kube, follower: Follower, leadership: Leadership, metrics: Metrics) -> None:
    cache = Cache()
    periods = Periods(settings.authority_seconds, settings.leaf_seconds, settings.kubelet_sync_seconds)
    certificates = CertificateStore(kube, periods)
    drainer = Drainer(kube, certificates, lambda key: queue.add(key), cache.refresh_pod)
    origin = Origin(settings.namespace, api_server_ports=settings.api_server_ports)
    home = Home(Release(settings.worker_image), origin, resync_seconds=settings.resync_seconds)
    intake = Intake(follower, cache, lambda key: queue.add(key), drainer.forget)
    optional = OptionalKinds(intake, settings.namespaces)
    metrics.registry.register(ExpiryCollector(cache, certificates.looked_at))
    session = ClientSession(trust_env=False)
    peers = PeerWatch(cache, lambda key: queue.add(key), partial(read_peers, session), settings.peers_seconds)
    surroundings = Surroundings(certificates, optional, peers, Shortages(kube, settings.shortage_seconds))
    reconciler = Reconciler(kube, cache, drainer, surroundings, home)
    children = ChildWatch(intake, settings.namespaces)

    async def turn(key: ClusterKey) -> float | None:
        with metrics.turns.time():
            return await reconciler.turn(key)

    def failed(key: ClusterKey, error: Exception) -> float | None:
        metrics.failures.labels(type(error).__name__).inc()
        known = isinstance(error, OperatorError)
        log.warning("turn_failed", cluster="/".join(key), reason=str(error), exc_info=None if known else error)
        return error.retry_after if isinstance(error, KubeError) else None

    async def work() -> None:
        watching = _watch(settings, handlers.registry(cache, queue.add))
        await _first_of(optional.run(), peers.run(), turns(), children.run(), watching)

    async def turns() -> None:
        await children.listed()
        await optional.looked()
        await queue.run(settings.workers)

    queue = KeyedQueue(turn, failed, debounce=settings.debounce_seconds)
    metrics.watch_queue(lambda: len(queue))
    try:
        await _first_of(leadership.keep(), work())
    finally:
        await drainer.close()
        await session.close()


async def _watch(settings: Settings, registry: kopf.OperatorRegistry) -> None:
    """Until SIGTERM, which kopf handles itself; raises OperatorError when a single watch fails for good."""
    with handlers.failed_watches() as failed:
        watching = kopf.operator(
            registry=registry,
            settings=handlers.settings(),
            namespaces=settings.namespaces,
            clusterwide=not settings.namespaces,
            standalone=True,
        )
        await _first_of(watching, failed)


async def _first_of(*parts: Coroutine[Any, Any, None]) -> None:
    """Runs all until one returns or fails, and ends the others then."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """The exit status: 0 after SIGTERM, 1 when it cannot go on."""
    log_to_stderr()
    gc.set_threshold(*COLLECT_AFTER)
    try:
        asyncio.run(until_told_to_stop(serve(from_environment())))
    except (OperatorError, BaseExceptionGroup) as error:
        log.error("failed", reason="; ".join(reasons(error)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
