"""The pods of one PDCluster, by list and watch of the Kubernetes API.

Pods count that are Running with an address and are not being deleted, never by readiness: a pod is ready when its model
is loaded, whatever its peers do. Labels and the port's name are the operator's (see ARCHITECTURE.md).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Protocol

import aiohttp
import msgspec
import structlog
from kubernetes.aio import client, config

from pdcluster_worker.core.wire import Role
from pdcluster_worker.errors import ConfigError
from pdcluster_worker.router.backoff import Backoff
from pdcluster_worker.router.config import StaticWorker

GROUP = "pdcluster.dev"
CLUSTER_LABEL, ROLE_LABEL, REVISION_LABEL = f"{GROUP}/cluster", f"{GROUP}/role", f"{GROUP}/revision"
PORT_NAME = "grpc"
WATCH_SECONDS = 290
_log = structlog.get_logger()


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    deletion_timestamp: str | None = None


class Port(msgspec.Struct, frozen=True, rename="camel"):
    container_port: int
    name: str = ""


class Container(msgspec.Struct, frozen=True):
    ports: list[Port] = []


class PodSpec(msgspec.Struct, frozen=True):
    containers: list[Container] = []


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    address: str = msgspec.field(default="", name="podIP")


class Pod(msgspec.Struct, frozen=True):
    """The few fields that matter here."""

    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class ListMetadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class PodList(msgspec.Struct, frozen=True):
    metadata: ListMetadata
    items: list[Pod] = []


class Event(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class PodAPI(Protocol):
    """The two calls that are needed; bytes as the server sends them."""

    async def list_pods(self, selector: str) -> bytes: ...
    def watch_pods(self, selector: str, resource_version: str) -> AsyncIterator[bytes]: ...


def worker_of(pod: Pod, revision: str) -> StaticWorker | None:
    """None when the pod is no worker to talk to now."""
    role = pod.metadata.labels.get(ROLE_LABEL, "")
    if role not in set(Role) or pod.metadata.deletion_timestamp is not None:
        return None
    if pod.status.phase != "Running" or not pod.status.address:
        return None
    if revision and pod.metadata.labels.get(REVISION_LABEL) != revision:
        return None
    ports = [port for container in pod.spec.containers for port in container.ports if port.name == PORT_NAME]
    if not ports:
        return None
    host = f"[{pod.status.address}]" if ":" in pod.status.address else pod.status.address
    return StaticWorker(Role(role), f"{host}:{ports[0].container_port}")


def workers_of(pods: Iterable[Pod], revision: str) -> tuple[StaticWorker, ...]:
    found = {worker for pod in pods if (worker := worker_of(pod, revision)) is not None}
    return tuple(sorted(found, key=lambda worker: (worker.role, worker.address)))


class PodWatcher:
    """Knows the pods; reports the workers among them at every change."""

    def __init__(
        self,
        api: PodAPI,
        cluster: str,
        revision: str,
        report: Callable[[tuple[StaticWorker, ...]], Awaitable[None]],
        report_gone: Callable[[frozenset[str]], None] = lambda names: None,
    ) -> None:
        self._api = api
        self._selector = f"{CLUSTER_LABEL}={cluster}"
        self._revision = revision
        self._report = report
        self._report_gone = report_gone
        self._pods: dict[str, Pod] = {}
        self._gone: frozenset[str] = frozenset()
        self._reported: tuple[StaticWorker, ...] | None = None
        self._backoff = Backoff(0.2, 10.0)

    async def run(self) -> None:
        """Until cancelled. While the API server cannot be reached, the last known workers stand."""
        while True:
            try:
                await self._list_and_watch()
                self._backoff.reset()
            except (client.ApiException, aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                _log.warning("pods_not_watched", reason=str(error)[:300])
                await self._backoff.wait()

    async def _list_and_watch(self) -> None:
        listed = msgspec.json.decode(await self._api.list_pods(self._selector), type=PodList)
        before = self._worker_names()
        self._pods = {pod.metadata.uid: pod for pod in listed.items}
        self._note_gone(before)
        await self._changed()
        async for line in self._api.watch_pods(self._selector, listed.metadata.resource_version):
            event = msgspec.json.decode(line, type=Event)
            if event.type == "ERROR":  # usually: the resource version is too old
                return
            if event.type != "BOOKMARK":
                before = self._worker_names()
                self._apply(event)
                self._note_gone(before)
                await self._changed()

    def _apply(self, event: Event) -> None:
        pod = msgspec.json.decode(event.object, type=Pod)
        if event.type == "DELETED":
            self._pods.pop(pod.metadata.uid, None)
        else:
            self._pods[pod.metadata.uid] = pod

    def _worker_names(self) -> frozenset[str]:
        pods = (pod.metadata for pod in self._pods.values())
        return frozenset(pod.name for pod in pods if pod.labels.get(ROLE_LABEL, "") in set(Role))

    def _note_gone(self, before: frozenset[str]) -> None:
        """A pod goes when the kubelet has said that its processes ended: that is the proof which is passed on."""
        present = self._worker_names()
        gone = (self._gone | before) - present
        if gone != self._gone:
            self._gone = gone
            self._report_gone(gone)

    async def _changed(self) -> None:
        workers = workers_of(self._pods.values(), self._revision)
        if workers != self._reported:
            self._reported = workers
            await self._report(workers)


class KubernetesPods:
    """PodAPI by the official client, with the pod's own service account."""

    def __init__(self, connection: client.ApiClient, namespace: str) -> None:
        self._calls = client.CoreV1Api(connection)
        self._namespace = namespace

    async def list_pods(self, selector: str) -> bytes:
        response = await self._call(selector, _request_timeout=30)
        body: bytes = await response.read()
        return body

    async def watch_pods(self, selector: str, resource_version: str) -> AsyncIterator[bytes]:
        response = await self._call(
            selector,
            watch=True,
            resource_version=resource_version,
            timeout_seconds=WATCH_SECONDS,
            allow_watch_bookmarks=True,
            _request_timeout=WATCH_SECONDS + 30,
        )
        rest = b""
        try:
            async for part in response.content.iter_any():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line:
                        yield line
        finally:
            response.close()

    async def _call(self, selector: str, **options: Any) -> Any:
        response = await self._calls.list_namespaced_pod_without_preload_content(
            self._namespace, label_selector=selector, **options
        )
        if response.status >= 300:
            raise client.ApiException(status=response.status, reason=response.reason)
        return response


async def watch_cluster(
    cluster: str,
    revision: str,
    report: Callable[[tuple[StaticWorker, ...]], Awaitable[None]],
    report_gone: Callable[[frozenset[str]], None],
) -> None:
    """`cluster` is NAME.NAMESPACE. ConfigError when this is no pod of a cluster."""
    name, _, namespace = cluster.partition(".")
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as error:
        raise ConfigError(f"no --worker is given, and the Kubernetes API cannot be used: {error}") from error
    async with client.ApiClient(configuration=settings) as connection:
        await PodWatcher(KubernetesPods(connection, namespace), name, revision, report, report_gone).run()
