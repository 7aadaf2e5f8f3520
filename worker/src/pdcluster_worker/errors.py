"""The worker's errors.

WorkerError
├── ConfigError         a flag, an environment variable or a file given by one is wrong
├── CheckpointError     a model's files: names the file and the tensor or field
├── ValidationError     a request: names the field and the limit (400)
├── ProtocolError       a peer broke the wire's rules or limits
├── TransportError      KV transport: set-up or a write
├── ExecutorError       the executor process failed to start or died
└── StateError          a bug: an operation that the present state forbids
"""


class WorkerError(Exception):
    """Base of all errors that the worker raises on purpose. The message is for people."""


class ConfigError(WorkerError):
    pass


class CheckpointError(WorkerError):
    pass


class ValidationError(WorkerError):
    """`param` is the request's field, as the client wrote it."""

    def __init__(self, message: str, param: str = "") -> None:
        super().__init__(message)
        self.param = param


class ProtocolError(WorkerError):
    """`kind` is the label under which it is counted: garbage, malformed, limit, order, version, layout, model or
    revision."""

    def __init__(self, message: str, kind: str = "malformed") -> None:
        super().__init__(message)
        self.kind = kind


class TransportError(WorkerError):
    pass


class ExecutorError(WorkerError):
    pass


class StateError(WorkerError):
    pass
