"""PodPlan: one pod as `pdc run` starts it and as the operator's builders render it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ports:
    """A worker has `grpc` and `metrics`; a router has `http`, which serves its metrics too. 0: it has none."""

    grpc: int = 0
    metrics: int = 0
    http: int = 0


@dataclass(frozen=True, slots=True)
class CPUShare:
    """`affinity` empty: any core."""

    threads: int
    affinity: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class TLSPaths:
    """Where a pod finds its certificate, its key and the authorities that it trusts."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True, slots=True)
class Volume:
    """Files of the host, or of the source that `name` stands for, at `mount_path` in the pod."""

    name: str
    mount_path: str
    host_path: str = ""
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Seat:
    """Where one pod sits: all that a command line needs and the spec does not say.

    On a cluster one seat stands for all pods of a role, in the words of the kubelet: `$(POD_NAME)`.
    """

    name: str
    index: int
    host: str
    advertise: str
    ports: Ports
    cpu: CPUShare | None = None
    environment: tuple[tuple[str, str], ...] = ()
    tls: TLSPaths | None = None


@dataclass(frozen=True, slots=True)
class PodPlan:
    """`command` begins with the module to run: `-m pdcluster_worker ...`; `role` is a worker role or `router`."""

    name: str
    role: str
    index: int
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    ports: Ports
    host: str
    advertise: str
    cpu: CPUShare | None
    volumes: tuple[Volume, ...]
    replicas: int = 1

    @property
    def is_router(self) -> bool:
        return self.role == "router"
