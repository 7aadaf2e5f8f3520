"""What had arrived over TCP when a fence began, and whether it has been read. See `NixlTransport.drain`.

A killed sender's kernel goes on sending what the process had handed to it. So an empty receive queue is no proof
by itself: a connection has nothing left from before the fence once it is gone, has ended (FIN) and been read empty,
has been silent for a while, or has brought more than any sender's kernel can have held.
"""

import array
import fcntl
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

QUIET_SECONDS = 0.5
"""Longer than the first retransmission time-outs (200 ms and up, doubling)."""

KERNEL_BUFFER_BYTES = 64 << 20
"""More than a sender's kernel holds for one connection (tcp_wmem is 4 to 6 MiB by default)."""

SAMPLE_SECONDS = 0.02

_INFO_BYTES = 136
_LAST_DATA_OFFSET, _RECEIVED_OFFSET = 52, 128
"""Of tcpi_last_data_recv (ms) and tcpi_bytes_received in struct tcp_info (linux/tcp.h); tcpi_state is byte 0."""

_RECEIVING_STATES = frozenset({1, 4, 5})
"""ESTABLISHED, FIN_WAIT1 and FIN_WAIT2 (net/tcp_states.h): data may still come."""

_LISTEN = 10


@dataclass(frozen=True, slots=True)
class Sample:
    """One connection at one time: bytes unread, seconds since data last came, bytes ever received."""

    open: bool
    unread: int
    silent: float
    received: int


def is_read(at_fence: Sample, now: Sample) -> bool:
    """Whether nothing from before the fence can still be on its way into this process."""
    if now.received - at_fence.received > KERNEL_BUFFER_BYTES:
        return True
    return now.unread == 0 and (not now.open or now.silent >= QUIET_SECONDS)


def wait_until_read(deadline: float) -> bool:
    """Waits until no connection of this process holds bytes from before the call. False at the deadline.

    The kernel has no event for silence, so this samples; it runs only while a fence is out.
    """
    pending = dict(connections())
    pause = threading.Event()
    while True:
        present = dict(connections())
        pending = {
            key: sample for key, sample in pending.items() if key in present and not is_read(sample, present[key])
        }
        if not pending:
            return True
        if time.monotonic() >= deadline:
            return False
        pause.wait(SAMPLE_SECONDS)


def connections() -> Iterator[tuple[int, Sample]]:
    """The TCP connections of this process by inode. Descriptors are not duplicated: epoll would keep a closed one."""
    for name in os.listdir("/proc/self/fd"):
        try:
            inode = os.stat(int(name)).st_ino
            borrowed = socket.socket(fileno=int(name))
        except OSError:
            continue
        try:
            if borrowed.family in (socket.AF_INET, socket.AF_INET6) and borrowed.type == socket.SOCK_STREAM:
                yield from ((inode, sample) for sample in _samples(borrowed))
        finally:
            borrowed.detach()


def _samples(connection: socket.socket) -> Iterator[Sample]:
    """One sample, or none of a listener or of a descriptor closed meanwhile."""
    unread = array.array("i", [0])
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, unread)
    except OSError:
        return
    if info[0] != _LISTEN:
        silent = struct.unpack_from("I", info, _LAST_DATA_OFFSET)[0] / 1000
        received = struct.unpack_from("Q", info, _RECEIVED_OFFSET)[0]
        yield Sample(info[0] in _RECEIVING_STATES, unread[0], silent, received)
