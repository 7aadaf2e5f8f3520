"""Chooses the transport, and sets UCX's environment before NIXL loads UCX.

| protocol | UCX transports |
|---|---|
| IPC | shared memory, TCP as the fallback |
| TCP | TCP |
| RDMA | UCX's own choice: verbs and GPUDirect where a NIC exists |

Variables that are set already win: an administrator may know the network better. UCX's `self` transport is left out
everywhere: a fence is an echo to the own agent that must queue behind the peers' writes.
"""

import ipaddress
import os

from pdcluster_worker.errors import TransportError
from pdcluster_worker.kv.protocol import KVProtocol
from pdcluster_worker.kv.transport import KVTransport

TCP_PORT_RANGE = "23000-23999"
"""UCX listens on a port of this range, so that a firewall or a NetworkPolicy can name it."""

_TRANSPORTS = {KVProtocol.IPC: "sm,tcp", KVProtocol.TCP: "tcp", KVProtocol.RDMA: "^self"}


def ucx_environment(protocol: KVProtocol, on_device: bool, host: str) -> dict[str, str]:
    """`host`: where the worker listens; on a loopback address UCX stays on the loopback interface."""
    variables = {
        "UCX_TLS": _TRANSPORTS[protocol],
        "UCX_TCP_PORT_RANGE": TCP_PORT_RANGE,
        "UCX_WARN_UNUSED_ENV_VARS": "n",
        "UCX_LOG_LEVEL": "fatal",
        "NIXL_LOG_LEVEL": "FATAL",
    }
    if protocol is not KVProtocol.RDMA:
        if on_device:
            variables["UCX_TLS"] += ",cuda"
        if _is_loopback(host):
            variables["UCX_NET_DEVICES"] = "lo"
    return variables


def make_transport(protocol: KVProtocol, agent_name: str, on_device: bool, host: str = "") -> KVTransport:
    """The NIXL transport. Raises TransportError when NIXL or UCX cannot start."""
    for name, value in ucx_environment(protocol, on_device, host).items():
        os.environ.setdefault(name, value)
    try:
        from pdcluster_worker.kv.nixl_transport import NixlTransport
    except ImportError as error:
        raise TransportError(f"NIXL cannot be loaded: {error}") from error
    return NixlTransport(agent_name, on_device)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
