"""From all threads of the executor to the engine: one thread owns the PUSH socket and joins what waits.

The socket has a ZeroMQ context of its own: only the end of its context waits until what was sent has left, and the
last words of a failed executor must leave without waiting for any other socket.
"""

import os
import queue
import threading
from collections.abc import Sequence

import structlog
import zmq

from pdcluster_worker.ipc.messages import FromExecutor
from pdcluster_worker.ipc.sockets import Sender

log = structlog.get_logger(__name__)

SEND_TIMEOUT = 30.0
LINGER = 2.0
_END = None


class Reporter:
    """`put` from any thread; nothing is lost or reordered until `close`."""

    def __init__(self, address: str, rank: int) -> None:
        self._address = address
        self.rank = rank
        self._queue: queue.SimpleQueue[FromExecutor | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def put(self, message: FromExecutor) -> None:
        self._queue.put(message)

    def close(self) -> None:
        """Sends what is queued."""
        self._queue.put(_END)
        self._thread.join(LINGER + 1)

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        sender: Sender[FromExecutor] = Sender(context, self._address, bind=False, timeout=SEND_TIMEOUT)
        try:
            self._send_all(sender)
        except Exception:  # the thread's top: an executor that cannot report is of no use
            log.exception("reporter_failed")
            os._exit(1)
        sender.close(LINGER)
        context.term()

    def _send_all(self, sender: Sender[FromExecutor]) -> None:
        ended = False
        while not ended:
            messages, ended = self._take()
            if messages:
                sender.send(join(messages))

    def _take(self) -> tuple[list[FromExecutor], bool]:
        """All that is queued, at least one entry; whether the end was among them."""
        entries = [self._queue.get()]
        while not self._queue.empty():
            entries.append(self._queue.get_nowait())
        return [entry for entry in entries if entry is not None], None in entries


def join(messages: Sequence[FromExecutor]) -> FromExecutor:
    """One message that says all of them, in order."""
    return FromExecutor(
        rank=messages[0].rank,
        loading=max(message.loading for message in messages),
        ready=next((message.ready for message in messages if message.ready is not None), None),
        steps=tuple(step for message in messages for step in message.steps),
        transfers=tuple(transfer for message in messages for transfer in message.transfers),
        fences=tuple(fence for message in messages for fence in message.fences),
        peers_added=tuple(peer for message in messages for peer in message.peers_added),
        peers_failed=tuple(peer for message in messages for peer in message.peers_failed),
        fatal=next((message.fatal for message in messages if message.fatal), ""),
    )
