"""Drains under way: the marks on the pods, and one call per draining worker that waits until it is empty.

The marks are what counts: they outlive the operator, and a call that is lost is made again from them. All on the event
loop, which is the only writer of what is known to be drained.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc.aio
import structlog

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.transport import TLSMode
from pdcluster_operator.desired import labels
from pdcluster_operator.desired.naming import tls_identity
from pdcluster_operator.kube import Kube, KubeError
from pdcluster_operator.observe import ClusterKey, Pod
from pdcluster_operator.own_authority import CertificateError
from pdcluster_operator.plan.site import GRPC_PORT
from pdcluster_operator.resources import POD, Manifest
from pdcluster_operator.secrets_store import CertificateStore
from pdcluster_proto.v1 import admin_pb2

log = structlog.get_logger(__name__)

CALL_SECONDS = 10.0
RETRY_SECONDS = 2.0


class Drainer:
    """`changed` is called with a cluster's key when one of its pods turns out to be empty.

    `marked` is told a pod as it is once it has its marks: a turn that came before the watch would mark it again.
    """

    def __init__(
        self,
        kube: Kube,
        certificates: CertificateStore,
        changed: Callable[[ClusterKey], None],
        marked: Callable[[Manifest], None],
    ) -> None:
        self._kube = kube
        self._certificates = certificates
        self._changed = changed
        self._marked = marked
        self._calls: dict[str, asyncio.Task[None]] = {}
        self._drained: set[str] = set()

    @property
    def drained(self) -> frozenset[str]:
        """The uids of pods that told that they hold nothing any more."""
        return frozenset(self._drained)

    async def start(self, cluster: PDCluster, pod: Pod, deadline: float, now: float, *, afresh: bool = False) -> None:
        """Marks the pod, unless it is marked, and sees that a call is under way; `afresh`: a new one."""
        if afresh:
            self.forget(pod.uid)
        if afresh or pod.drain_uid != pod.uid or pod.counted:
            notes = {labels.DRAIN_UID: pod.uid, labels.DRAIN_DEADLINE: f"{deadline:.3f}", labels.DRAINED: None}
            await self._mark(cluster, pod, {"annotations": notes, "labels": {labels.COUNTED: None}})
        if pod.uid not in self._calls and pod.uid not in self._drained and deadline > now:
            self._calls[pod.uid] = asyncio.create_task(self._drain(cluster, pod, deadline - now))

    async def stop(self, cluster: PDCluster, pod: Pod) -> None:
        """The pod serves again: first the worker is told, then the marks go."""
        call = self._calls.pop(pod.uid, None)
        if call:
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        with contextlib.suppress(grpc.aio.AioRpcError, CertificateError):
            async with await self._channel(cluster, pod) as channel:
                resume = channel.unary_unary(
                    "/pdcluster.v1.Admin/Resume",
                    request_serializer=admin_pb2.ResumeRequest.SerializeToString,
                    response_deserializer=admin_pb2.ResumeReply.FromString,
                )
                await resume(admin_pb2.ResumeRequest(), timeout=CALL_SECONDS)
        self._drained.discard(pod.uid)
        notes = {labels.DRAIN_UID: None, labels.DRAIN_DEADLINE: None, labels.DRAINED: None}
        await self._mark(cluster, pod, {"annotations": notes, "labels": {labels.COUNTED: "true"}})

    async def note(self, cluster: PDCluster, pod: Pod) -> None:
        """Marks the pod as empty, for those who asked for its drain."""
        await self._mark(cluster, pod, {"annotations": {labels.DRAINED: str(pod.restarts)}})

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        self._drained.discard(uid)
        call = self._calls.pop(uid, None)
        if call:
            call.cancel()

    async def close(self) -> None:
        """Ends all calls; the workers go on draining."""
        calls = list(self._calls.values())
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def _mark(self, cluster: PDCluster, pod: Pod, metadata: dict[str, Any]) -> None:
        """Of that very pod; one that is gone needs no mark."""
        namespace = cluster.metadata.namespace
        try:
            self._marked(await self._kube.merge(POD, namespace, pod.name, {"metadata": {"uid": pod.uid, **metadata}}))
        except KubeError as error:
            if not (error.is_missing or error.is_conflict):
                raise

    async def _drain(self, cluster: PDCluster, pod: Pod, seconds: float) -> None:
        """Until the worker is empty, or out of time; a worker that cannot be reached is asked again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await self._is_empty(cluster, pod, seconds):
                    await asyncio.sleep(RETRY_SECONDS)
                self._drained.add(pod.uid)
        self._calls.pop(pod.uid, None)
        self._changed((cluster.metadata.namespace, cluster.metadata.name))

    async def _is_empty(self, cluster: PDCluster, pod: Pod, seconds: float) -> bool:
        """Follows one Drain to its end. A pod that is not ready and does not answer has nothing to lose."""
        request = admin_pb2.DrainRequest(deadline_ms=round(seconds * 1000))
        try:
            async with await self._channel(cluster, pod) as channel:
                drain = channel.unary_stream(
                    "/pdcluster.v1.Admin/Drain",
                    request_serializer=admin_pb2.DrainRequest.SerializeToString,
                    response_deserializer=admin_pb2.DrainProgress.FromString,
                )
                async for progress in drain(request):
                    if progress.drained:
                        return True
        except (grpc.aio.AioRpcError, KubeError, CertificateError) as error:
            log.info("drain_interrupted", pod=pod.name, reason=str(error))
            return not pod.ready
        return False

    async def _channel(self, cluster: PDCluster, pod: Pod) -> grpc.aio.Channel:
        address = f"{pod.address}:{GRPC_PORT}"
        if cluster.spec.tls.mode is TLSMode.DISABLED:
            return grpc.aio.insecure_channel(address)
        pair, trust = await self._certificates.operator_pair(cluster)
        name = tls_identity(pod.role, cluster.metadata.name, cluster.metadata.namespace)
        credentials = grpc.ssl_channel_credentials(trust, pair.key, pair.certificate)
        return grpc.aio.secure_channel(address, credentials, [("grpc.ssl_target_name_override", name)])
