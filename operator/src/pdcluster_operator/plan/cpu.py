"""Who computes on which cores and GPUs of one machine. Pure."""

from pdcluster_operator.crd.cluster import ClusterSpec
from pdcluster_operator.crd.role import Role
from pdcluster_operator.crd.values import amount
from pdcluster_operator.desired.pod import CPUShare


def threads_of(role: Role, cores: int, workers: int) -> int:
    """`resources.limits.cpu` in whole cores, at least 1 and at most what there is; else an equal share of all cores."""
    limit = (role.resources.limits if role.resources else None) or {}
    if "cpu" in limit:
        return max(1, min(int(amount(limit["cpu"])), cores))
    return max(1, cores // workers)


def has_limit(role: Role) -> bool:
    return bool(role.resources and role.resources.limits and "cpu" in role.resources.limits)


def share_cores(spec: ClusterSpec, cores: tuple[int, ...]) -> dict[tuple[str, int], CPUShare]:
    """By (role, index). Roles with a limit get cores of their own, dealt in turn, again from the first if need be."""
    pods = [(name, index, role) for name, role in spec.roles().items() for index in range(role.first_replicas)]
    shares, dealt = {}, 0
    for name, index, role in pods:
        threads = threads_of(role, len(cores), len(pods))
        affinity: tuple[int, ...] = ()
        if has_limit(role):
            affinity = tuple(sorted(cores[(dealt + offset) % len(cores)] for offset in range(threads)))
            dealt += threads
        shares[name, index] = CPUShare(threads, affinity)
    return shares


def share_gpus(spec: ClusterSpec) -> dict[tuple[str, int], tuple[int, ...]]:
    """By (role, index): numbers of the GPUs, each given once, from 0."""
    shares, given = {}, 0
    for name, role in spec.roles().items():
        for index in range(role.first_replicas):
            shares[name, index] = tuple(range(given, given + role.gpu.count))
            given += role.gpu.count
    return shares
