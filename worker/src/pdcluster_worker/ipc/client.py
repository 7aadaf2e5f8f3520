"""The engine's side of one executor process: start it, send to it, hear from it and of its death.

    executor = ExecutorProcess.spawn(config, on_message, on_exit)
    executor.send(ToExecutor(plans=...))       # always from one and the same thread
    executor.stop(timeout=5.0)

Who writes what: the thread that calls `send` owns the PUSH socket; one thread inside owns the PULL socket and the
child's pidfd and calls back.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import msgspec
import structlog
import zmq

from pdcluster_worker.config import ExecutorConfig
from pdcluster_worker.errors import ExecutorError, StateError
from pdcluster_worker.ipc.messages import FromExecutor, ToExecutor
from pdcluster_worker.ipc.sockets import Receiver, Sender
from pdcluster_worker.ipc.startup import command_line, environment

log = structlog.get_logger(__name__)

SEND_TIMEOUT = 5.0
LAST_WORDS_TIMEOUT = 0.2
"""A dead executor's last messages may still be on their way through the sockets."""

MessageCallback = Callable[[FromExecutor], None]
ExitCallback = Callable[[str], None]


class ExecutorProcess:
    """One executor process. `on_message` and then, exactly once, `on_exit(reason)` are called on one inner thread."""

    def __init__(self, child: "subprocess.Popen[bytes]", config: ExecutorConfig) -> None:
        """Use `spawn`."""
        self._child = child
        self._config = config
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._sender: Sender[ToExecutor] | None = None
        self._sending_thread = 0
        self._ended = threading.Event()
        self._listener: threading.Thread | None = None

    @classmethod
    def spawn(cls, config: ExecutorConfig, on_message: MessageCallback, on_exit: ExitCallback) -> "ExecutorProcess":
        """Starts the process; `ready` or `fatal` come through `on_message`.

        The child asks the kernel to die with the *thread* that calls this (PDEATHSIG): call it from a thread that
        lives as long as the engine. Raises ExecutorError when the process or its sockets cannot be made.
        """
        try:
            child = subprocess.Popen(command_line(config), env=environment(config), stdin=subprocess.DEVNULL)
        except OSError as error:
            raise ExecutorError(f"cannot start the executor: {error}") from error
        executor = cls(child, config)
        try:
            executor._listen(on_message, on_exit)
        except zmq.ZMQError as error:
            child.kill()
            child.wait()
            raise ExecutorError(f"cannot bind the executor's socket: {error}") from error
        return executor

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def send(self, message: ToExecutor) -> None:
        """Queues the message. The first caller's thread must make all later calls. Raises ExecutorError when the
        executor has not read for long; a dead executor takes messages silently (`on_exit` tells).

        Lifetimes of transfers count from `sent_at`, which is now unless the message says."""
        if self._sender is None:
            self._sender = Sender(self._context, self._config.plan_socket, bind=True, timeout=SEND_TIMEOUT)
            self._sending_thread = threading.get_ident()
        if threading.get_ident() != self._sending_thread:
            raise StateError("the executor's socket belongs to another thread")
        if self.alive:
            self._sender.send(
                message if message.sent_at else msgspec.structs.replace(message, sent_at=time.monotonic())
            )

    def stop(self, timeout: float) -> None:
        """Asks for an orderly end, waits `timeout` seconds, then kills. Call it on the thread that sends."""
        if self.alive:
            self.send(ToExecutor(shutdown=True))
        if not self._ended.wait(timeout):
            log.warning("executor_killed", pid=self.pid, seconds=timeout)
            self.kill()
        self.close()

    def kill(self) -> None:
        """SIGKILL; `on_exit` follows."""
        self._child.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Frees the sockets of an executor that has ended or been killed, from the thread that sends."""
        self._ended.wait(SEND_TIMEOUT)
        if self._sender is not None:
            self._sender.close(linger=0)
            self._sender = None
        if self._listener is not None and self._listener is not threading.current_thread():
            self._listener.join(SEND_TIMEOUT)
        if not self._context.closed:
            self._context.term()

    def _listen(self, on_message: MessageCallback, on_exit: ExitCallback) -> None:
        receiver = Receiver(self._context, self._config.report_socket, bind=True, message_type=FromExecutor)
        pidfd = os.pidfd_open(self._child.pid)
        listener = _Listener(receiver, pidfd, self._child, on_message, on_exit, self._ended)
        self._listener = threading.Thread(target=listener.run, name=f"executor-{self._config.rank}", daemon=True)
        self._listener.start()


class _Listener:
    """Runs on the inner thread: messages until the child is dead and its last message has been read."""

    def __init__(
        self,
        receiver: Receiver[FromExecutor],
        pidfd: int,
        child: "subprocess.Popen[bytes]",
        on_message: MessageCallback,
        on_exit: ExitCallback,
        ended: threading.Event,
    ) -> None:
        self._receiver = receiver
        self._pidfd = pidfd
        self._child = child
        self._on_message = on_message
        self._on_exit = on_exit
        self._ended = ended
        self._fatal = ""

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._receiver.socket, zmq.POLLIN)
        poller.register(self._pidfd, zmq.POLLIN)
        try:
            while self._pidfd not in dict(poller.poll()):
                self._read_all()
            while self._receiver.socket.poll(int(LAST_WORDS_TIMEOUT * 1000)):
                self._read_all()
        except ExecutorError as error:
            self._fatal = str(error)
            self._child.kill()
        status = self._child.wait()
        self._receiver.close()
        os.close(self._pidfd)
        self._ended.set()
        self._on_exit(self._fatal or _describe(status))

    def _read_all(self) -> None:
        while (message := self._receiver.receive_now()) is not None:
            self._fatal = message.fatal or self._fatal
            self._on_message(message)


def _describe(status: int) -> str:
    if status < 0:
        return f"the executor process was killed by {signal.Signals(-status).name}"
    return f"the executor process ended with status {status}"
