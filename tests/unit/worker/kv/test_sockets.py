"""When a connection holds nothing from before a fence."""

import dataclasses
import socket
import time

import pytest

from pdcluster_worker.kv.sockets import (
    KERNEL_BUFFER_BYTES,
    QUIET_SECONDS,
    Sample,
    connections,
    is_read,
    wait_until_read,
)

QUIET = Sample(open=True, unread=0, silent=QUIET_SECONDS, received=1000)


@pytest.mark.parametrize(
    ("now", "read"),
    [
        (QUIET, True),
        (dataclasses.replace(QUIET, unread=1), False),
        (dataclasses.replace(QUIET, silent=QUIET_SECONDS / 2), False),
        (dataclasses.replace(QUIET, silent=0.0, open=False), True),
        (dataclasses.replace(QUIET, unread=1, open=False), False),
        (dataclasses.replace(QUIET, unread=9, silent=0.0, received=1001 + KERNEL_BUFFER_BYTES), True),
        (dataclasses.replace(QUIET, unread=9, silent=0.0, received=KERNEL_BUFFER_BYTES), False),
    ],
)
def test_a_connection_is_read_when_nothing_older_can_come(now: Sample, read: bool) -> None:
    assert is_read(QUIET, now) is read


def test_unread_bytes_of_a_closed_sender_hold_the_fence_until_they_are_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _ = server.accept()
        with receiver:
            sender.sendall(b"late")
            sender.close()
            assert any(sample.unread == 4 for _, sample in connections())
            assert not wait_until_read(time.monotonic())
            assert receiver.recv(10) == b"late"
            assert wait_until_read(time.monotonic() + 5)


def test_descriptors_are_left_as_they_were() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert len(list(connections())) >= 1
        assert client.getpeername() == server.getsockname()
