"""The environment that UCX is given for each protocol."""

import pytest

from pdcluster_worker.kv.protocol import KVProtocol
from pdcluster_worker.kv.registry import TCP_PORT_RANGE, ucx_environment


@pytest.mark.parametrize(
    ("protocol", "transports"), [(KVProtocol.IPC, "sm,tcp"), (KVProtocol.TCP, "tcp"), (KVProtocol.RDMA, "^self")]
)
def test_each_protocol_has_its_transports_and_all_a_fixed_port_range(protocol: KVProtocol, transports: str) -> None:
    environment = ucx_environment(protocol, on_device=False, host="10.0.0.1")
    assert environment["UCX_TLS"] == transports
    assert environment["UCX_TCP_PORT_RANGE"] == TCP_PORT_RANGE
    assert "UCX_NET_DEVICES" not in environment


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_worker_on_loopback_keeps_kv_there(host: str) -> None:
    assert ucx_environment(KVProtocol.TCP, on_device=False, host=host)["UCX_NET_DEVICES"] == "lo"


def test_a_device_needs_its_own_transports_where_they_are_listed() -> None:
    assert ucx_environment(KVProtocol.TCP, on_device=True, host="")["UCX_TLS"] == "tcp,cuda"
    assert ucx_environment(KVProtocol.RDMA, on_device=True, host="")["UCX_TLS"] == "^self"
