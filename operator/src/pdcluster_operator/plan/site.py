"""Where a plan is carried out: on this machine (`pdc run`) or on a cluster (the operator). Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.role import Role
from pdcluster_operator.crd.transport import KVProtocol
from pdcluster_operator.desired.naming import ROUTER, pod_name
from pdcluster_operator.desired.pod import CPUShare, Ports, Seat, TLSPaths, Volume
from pdcluster_operator.plan.cpu import share_cores, share_gpus, threads_of

LOOPBACK = "127.0.0.1"
LONGEST_LOCAL_DRAIN = 5
GRPC_PORT, METRICS_PORT, HTTP_PORT = 8188, 8000, 8080
MODEL_FOLDER, TLS_FOLDER = "/models", "/etc/pdcluster/tls"


class Site(Protocol):
    """What the plan asks about the place."""

    @property
    def model_path(self) -> str: ...
    @property
    def profile_folder(self) -> str: ...
    @property
    def api_key_file(self) -> str: ...
    @property
    def static_discovery(self) -> bool: ...
    def seats(self, cluster: PDCluster, role_name: str, role: Role) -> tuple[Seat, ...]: ...
    def router_seat(self, cluster: PDCluster) -> Seat: ...
    def protocol(self, wanted: KVProtocol) -> KVProtocol: ...
    def drain_seconds(self, cluster: PDCluster) -> int: ...
    def router_drain_seconds(self, cluster: PDCluster) -> int: ...
    def volumes(self, cluster: PDCluster) -> tuple[Volume, ...]: ...


@dataclass(frozen=True, slots=True)
class LocalSite:
    """This machine. `ports` by pod name; `tls` by role, empty without TLS; `has_rdma`: an RDMA device exists."""

    model_path: str
    cores: tuple[int, ...]
    ports: Mapping[str, Ports]
    profile_folder: str = ""
    api_key_file: str = ""
    tls: Mapping[str, TLSPaths] = field(default_factory=dict)
    has_rdma: bool = False
    static_discovery: bool = True

    def seats(self, cluster: PDCluster, role_name: str, role: Role) -> tuple[Seat, ...]:
        cpus, gpus = share_cores(cluster.spec, self.cores), share_gpus(cluster.spec)
        return tuple(
            self._seat(cluster, role_name, index, cpus[role_name, index], gpus[role_name, index])
            for index in range(role.first_replicas)
        )

    def _seat(self, cluster: PDCluster, role: str, index: int, cpu: CPUShare, gpus: tuple[int, ...]) -> Seat:
        name = pod_name(cluster.metadata.name, role, index)
        ports = self.ports[name]
        environment = [("OMP_NUM_THREADS", str(cpu.threads))]
        if gpus:
            environment.append(("CUDA_VISIBLE_DEVICES", ",".join(map(str, gpus))))
        address = f"{LOOPBACK}:{ports.grpc}"
        return Seat(name, index, LOOPBACK, address, ports, cpu, tuple(environment), self.tls.get(role))

    def router_seat(self, cluster: PDCluster) -> Seat:
        name = pod_name(cluster.metadata.name, ROUTER, 0)
        ports = self.ports[name]
        return Seat(name, 0, LOOPBACK, f"{LOOPBACK}:{ports.http}", ports, tls=self.tls.get(ROUTER))

    def protocol(self, wanted: KVProtocol) -> KVProtocol:
        """Without an RDMA device, pods of one machine use shared memory."""
        return KVProtocol.IPC if wanted is KVProtocol.RDMA and not self.has_rdma else wanted

    def drain_seconds(self, cluster: PDCluster) -> int:
        """Short, so that Ctrl-C is."""
        return min(cluster.spec.drain.timeout_seconds, LONGEST_LOCAL_DRAIN)

    def router_drain_seconds(self, cluster: PDCluster) -> int:
        return self.drain_seconds(cluster)

    def volumes(self, cluster: PDCluster) -> tuple[Volume, ...]:
        return (Volume("model", self.model_path, self.model_path),)


@dataclass(frozen=True, slots=True)
class ClusterSite:
    """A Kubernetes cluster: one seat per role, whose `$(...)` the kubelet replaces in each pod."""

    model_path: str = MODEL_FOLDER
    profile_folder: str = ""
    api_key_file: str = ""
    static_discovery: bool = False

    def seats(self, cluster: PDCluster, role_name: str, role: Role) -> tuple[Seat, ...]:
        limits = (role.resources.limits if role.resources else None) or {}
        cpu = CPUShare(threads_of(role, cores=1024, workers=1)) if "cpu" in limits else None
        ports = Ports(grpc=GRPC_PORT, metrics=METRICS_PORT)
        return (Seat("$(POD_NAME)", 0, "0.0.0.0", f"$(POD_IP):{GRPC_PORT}", ports, cpu, (), _mounted_tls(cluster)),)

    def router_seat(self, cluster: PDCluster) -> Seat:
        ports = Ports(http=HTTP_PORT, metrics=METRICS_PORT)
        advertise = f"$(POD_IP):{HTTP_PORT}"
        return Seat("$(POD_NAME)", 0, "0.0.0.0", advertise, ports, tls=_mounted_tls(cluster))

    def protocol(self, wanted: KVProtocol) -> KVProtocol:
        """Pods of a cluster share no memory."""
        return KVProtocol.TCP if wanted is KVProtocol.IPC else wanted

    def drain_seconds(self, cluster: PDCluster) -> int:
        return cluster.spec.drain.timeout_seconds

    def router_drain_seconds(self, cluster: PDCluster) -> int:
        """As long as an open request may last."""
        return cluster.spec.router.request_timeout_seconds

    def volumes(self, cluster: PDCluster) -> tuple[Volume, ...]:
        source = cluster.spec.model.source.host_path
        return (Volume("model", MODEL_FOLDER, "" if source is None else source.path),)


def _mounted_tls(cluster: PDCluster) -> TLSPaths | None:
    if cluster.spec.tls.mode == "Disabled":
        return None
    return TLSPaths(f"{TLS_FOLDER}/tls.crt", f"{TLS_FOLDER}/tls.key", f"{TLS_FOLDER}/ca.crt")
