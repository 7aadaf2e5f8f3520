"""plan(): from a PDCluster and a site to the pods that should exist. Pure; `pdc run` and the operator share it."""

from dataclasses import dataclass

from pdcluster_operator.crd.cluster import PDCluster
from pdcluster_operator.crd.role import Role
from pdcluster_operator.crd.transport import KVProtocol
from pdcluster_operator.desired.commands import Setting, router_command, worker_command
from pdcluster_operator.desired.naming import ROUTER, cluster_identity
from pdcluster_operator.desired.pod import PodPlan, Seat
from pdcluster_operator.desired.revision import revision_of
from pdcluster_operator.plan.site import Site


@dataclass(frozen=True, slots=True)
class Plan:
    """`protocol` is the one in use, not always the one asked for; `pods`: workers in order, then the router."""

    cluster: str
    namespace: str
    revision: str
    protocol: KVProtocol
    pods: tuple[PodPlan, ...]

    @property
    def workers(self) -> tuple[PodPlan, ...]:
        return tuple(pod for pod in self.pods if not pod.is_router)

    @property
    def router(self) -> PodPlan:
        return next(pod for pod in self.pods if pod.is_router)


def plan(cluster: PDCluster, site: Site) -> Plan:
    """Every pod of `cluster` at `site`, on a cluster one per role with its number of replicas."""
    metadata, revision = cluster.metadata, revision_of(cluster)
    protocol = site.protocol(cluster.spec.transport.kv.protocol)
    setting = Setting(
        spec=cluster.spec,
        identity=cluster_identity(metadata.name, metadata.namespace),
        revision=revision,
        model_path=site.model_path,
        kv_protocol=protocol.value,
        drain_seconds=site.drain_seconds(cluster),
        profile_folder=site.profile_folder,
    )
    workers = tuple(
        pod for name, role in cluster.spec.roles().items() for pod in _workers(cluster, site, setting, name, role)
    )
    router = _router(cluster, site, setting, workers)
    return Plan(metadata.name, metadata.namespace, revision, protocol, (*workers, router))


def _workers(cluster: PDCluster, site: Site, setting: Setting, name: str, role: Role) -> tuple[PodPlan, ...]:
    seats = site.seats(cluster, name, role)
    environment = tuple((variable.name, variable.value) for variable in role.env)
    replicas = 1 if site.static_discovery else role.first_replicas
    return tuple(
        _pod(cluster, site, seat, name, worker_command(setting, name, role, seat), environment, replicas)
        for seat in seats
    )


def _router(cluster: PDCluster, site: Site, setting: Setting, workers: tuple[PodPlan, ...]) -> PodPlan:
    seat, router = site.router_seat(cluster), cluster.spec.router
    addresses = [f"{pod.role}={pod.advertise}" for pod in workers] if site.static_discovery else []
    drain, keys = site.router_drain_seconds(cluster), site.api_key_file
    command = router_command(setting, seat, addresses, drain_seconds=drain, api_key_file=keys)
    environment = tuple((variable.name, variable.value) for variable in router.env)
    return _pod(cluster, site, seat, ROUTER, command, environment, 1 if site.static_discovery else router.replicas)


def _pod(
    cluster: PDCluster,
    site: Site,
    seat: Seat,
    role: str,
    command: tuple[str, ...],
    environment: tuple[tuple[str, str], ...],
    replicas: int,
) -> PodPlan:
    """The user's environment wins over the seat's."""
    merged = dict(seat.environment) | dict(environment)
    return PodPlan(
        name=seat.name,
        role=role,
        index=seat.index,
        command=command,
        environment=tuple(merged.items()),
        ports=seat.ports,
        host=seat.host,
        advertise=seat.advertise,
        cpu=seat.cpu,
        volumes=site.volumes(cluster),
        replicas=replicas,
    )
