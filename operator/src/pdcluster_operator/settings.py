"""How the operator is set up, from its environment: read once, at the start."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pdcluster_operator.desired.kubernetes_network import API_SERVER_PORTS
from pdcluster_operator.errors import OperatorError

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True, slots=True)
class Settings:
    """`namespaces` empty: all of them. `kubeconfig` empty: the pod's service account."""

    namespace: str
    """Of the operator itself: its Lease is there."""
    worker_image: str
    identity: str
    namespaces: tuple[str, ...] = ()
    kubeconfig: str = ""
    metrics_port: int = 8000
    host: str = "0.0.0.0"
    workers: int = 8
    debounce_seconds: float = 0.1
    resync_seconds: float = 600.0
    lease_seconds: float = 15.0
    authority_seconds: float = 3650 * 86400.0
    leaf_seconds: float = 365 * 86400.0
    kubelet_sync_seconds: float = 60.0
    peers_seconds: float = 300.0
    shortage_seconds: float = 5.0
    api_server_ports: tuple[int, ...] = API_SERVER_PORTS


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Raises OperatorError naming a variable that is missing or wrong."""
    image = environment.get("PDC_WORKER_IMAGE", "")
    if not image:
        raise OperatorError("PDC_WORKER_IMAGE is not set: the image of workers whose PDCluster names none")
    own = environment.get("POD_NAMESPACE") or _mounted_namespace()
    return Settings(
        namespace=own,
        worker_image=image,
        identity=environment.get("POD_NAME") or socket.gethostname(),
        namespaces=_list(environment, "PDC_NAMESPACES"),
        kubeconfig=environment.get("KUBECONFIG", ""),
        metrics_port=int(_number(environment, "PDC_METRICS_PORT", 8000)),
        host=environment.get("PDC_HOST", "0.0.0.0"),
        lease_seconds=_number(environment, "PDC_LEASE_SECONDS", 15.0),
        resync_seconds=_number(environment, "PDC_RESYNC_SECONDS", 600.0),
        authority_seconds=_number(environment, "PDC_AUTHORITY_SECONDS", 3650 * 86400.0),
        leaf_seconds=_number(environment, "PDC_LEAF_SECONDS", 365 * 86400.0),
        peers_seconds=_number(environment, "PDC_PEERS_SECONDS", 300.0),
        shortage_seconds=_number(environment, "PDC_SHORTAGE_SECONDS", 5.0),
        kubelet_sync_seconds=_number(environment, "PDC_KUBELET_SYNC_SECONDS", 60.0),
        api_server_ports=_ports(environment, "PDC_API_SERVER_PORTS") or API_SERVER_PORTS,
    )


def _list(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in environment.get(name, "").split(",") if part.strip())


def _ports(environment: Mapping[str, str], name: str) -> tuple[int, ...]:
    """Raises OperatorError for what is no port."""
    ports = _list(environment, name)
    if any(not port.isdecimal() or not 0 < int(port) < 65536 for port in ports):
        raise OperatorError(f"{name}={environment[name]!r} is no list of ports, such as 443,6443")
    return tuple(int(port) for port in ports)


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(environment.get(name, "") or default)
    except ValueError as error:
        raise OperatorError(f"{name}={environment[name]!r} is not a number") from error


def _mounted_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"
