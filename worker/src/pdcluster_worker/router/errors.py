"""Errors as a client sees them: OpenAI's shape, one class for all."""

import math

import msgspec


class APIError(Exception):
    """`kind` is OpenAI's `type`; `retry_after` seconds become the header of that name."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param
        self.code = code
        self.retry_after = retry_after

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"retry-after": str(max(1, math.ceil(self.retry_after)))}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> APIError:
    return APIError(400, message, param=param, code=code)


def overloaded(message: str, retry_after: float, status: int = 503) -> APIError:
    kind = "rate_limit_error" if status == 429 else "service_unavailable_error"
    return APIError(status, message, kind=kind, code="overloaded", retry_after=retry_after)


def timed_out(message: str) -> APIError:
    return APIError(504, message, kind="timeout_error", code="deadline_exceeded")


def internal(message: str, code: str = "internal_error") -> APIError:
    return APIError(500, message, kind="server_error", code=code)
