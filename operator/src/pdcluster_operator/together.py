"""Several calls at once, none of them left behind."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def together(*calls: Awaitable[Result]) -> list[Result]:
    """All results, in order. When one raises, the others come to their end first; then the first error is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    found: list[Result] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found
