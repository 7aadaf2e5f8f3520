"""Kept ports: nobody else gets them, the pod can listen on them."""

import socket

import pytest

from pdcluster_operator.errors import LocalError
from pdcluster_operator.local.ports import PortKeeper, assign


def listen(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_a_kept_port_can_be_listened_on_again_and_again():
    with PortKeeper() as keeper:
        port = keeper.free()
        for _ in range(3):
            with listen(port), socket.create_connection(("127.0.0.1", port)):
                pass


def test_a_kept_port_is_nobody_elses():
    with PortKeeper() as keeper, socket.socket() as other:
        port = keeper.free()
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))


def test_two_keepers_never_share():
    with PortKeeper() as one, PortKeeper() as two:
        ports = [keeper.free() for _ in range(50) for keeper in (one, two)]
        assert len(set(ports)) == 100


def test_a_port_in_use_is_an_error_that_says_so():
    with PortKeeper() as keeper, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} of 127.0.0.1 is in use"):
            keeper.chosen(port)


def test_a_port_is_free_again_when_the_keeper_is_closed():
    with PortKeeper() as keeper:
        port = keeper.free()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))


def test_assignment():
    with PortKeeper() as keeper:
        found = assign(keeper, ["w0", "w1"], "r", 0)
        numbers = [
            *(port for name in ("w0", "w1") for port in (found[name].grpc, found[name].metrics)),
            found["r"].http,
        ]
        assert len(set(numbers)) == 5
        assert found["r"].grpc == 0
