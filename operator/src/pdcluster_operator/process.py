"""What every long-running program of the operator's image does alike: logs, signals, and the HTTP that it shows."""

import asyncio
import contextlib
import logging
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import structlog
from aiohttp import web

CLOSE_SECONDS = 60.0
"""aiohttp's own default for requests that are under way when a server ends."""


def log_to_stderr() -> None:
    """One JSON line per event; libraries are heard from warnings on."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def until_told_to_stop(serving: Coroutine[Any, Any, None]) -> None:
    """Runs it until it ends, or until SIGTERM or SIGINT cancels it; raises what it raises."""
    task = asyncio.create_task(serving)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def listening(
    app: web.Application,
    host: str,
    port: int,
    tls: ssl.SSLContext | None = None,
    close_seconds: float = CLOSE_SECONDS,
) -> AsyncIterator[None]:
    """Serves the application while the context lasts; raises OSError when the port is taken."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=close_seconds)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=tls).start()
    try:
        yield
    finally:
        await runner.cleanup()


def reasons(error: BaseException) -> list[str]:
    """Of an error, or of all in a group."""
    if isinstance(error, BaseExceptionGroup):
        return [reason for entry in error.exceptions for reason in reasons(entry)]
    return [str(error) or type(error).__name__]
