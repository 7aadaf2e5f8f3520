"""Typed ends of the ZeroMQ sockets between engine and executor. Each end belongs to the one thread that made it.

Messages are msgpack; a message over the limit, or one that does not decode, is an ExecutorError. Both sockets are
bound by the engine, in a folder that only its user can enter.
"""

from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import zmq

from pdcluster_worker.errors import ExecutorError

MAX_MESSAGE_BYTES = 64 << 20
HIGH_WATER_MARK = 10_000
"""Messages. Far more than plans in flight: reaching it means that the other side no longer reads."""

Message = TypeVar("Message")


class Sender(Generic[Message]):
    """A PUSH end. `send` never waits longer than `timeout` seconds for room."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", address: str, bind: bool, timeout: float) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._socket = context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.SNDTIMEO, int(timeout * 1000))
        self._file = _attach(self._socket, address, bind)

    def send(self, message: Message) -> None:
        data = self._encoder.encode(message)
        if len(data) > MAX_MESSAGE_BYTES:
            raise ExecutorError(f"message of {len(data)} bytes exceeds the limit of {MAX_MESSAGE_BYTES}")
        try:
            self._socket.send(data, copy=False)
        except zmq.Again:
            raise ExecutorError("the other end of the executor's socket does not read") from None

    def close(self, linger: float) -> None:
        """Gives what was sent `linger` seconds to leave."""
        self._socket.close(linger=int(linger * 1000))
        _remove(self._file)


class Receiver(Generic[Message]):
    """A PULL end."""

    def __init__(
        self, context: "zmq.Context[zmq.Socket[bytes]]", address: str, bind: bool, message_type: type[Message]
    ) -> None:
        self._decoder = msgspec.msgpack.Decoder(message_type)
        self._socket = context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, HIGH_WATER_MARK)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._file = _attach(self._socket, address, bind)

    @property
    def socket(self) -> "zmq.Socket[bytes]":
        """For a poller of the owning thread."""
        return self._socket

    def receive(self) -> Message | None:
        """Waits for the next message. None: the context ended."""
        try:
            return self._decode(self._socket.recv())
        except zmq.ContextTerminated:
            return None

    def receive_now(self) -> Message | None:
        """The next message if it is there."""
        try:
            return self._decode(self._socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            return None

    def close(self) -> None:
        self._socket.close(linger=0)
        _remove(self._file)

    def _decode(self, data: bytes) -> Message:
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise ExecutorError(f"a message between engine and executor does not decode: {error}") from error


def _attach(socket: "zmq.Socket[bytes]", address: str, bind: bool) -> Path | None:
    """The file that this end made, and so removes."""
    if not bind:
        socket.connect(address)
        return None
    socket.bind(address)
    return Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None


def _remove(file: Path | None) -> None:
    if file is not None:
        file.unlink(missing_ok=True)
