"""Whether the router can serve: it answers `/ready` with 200 when it knows a usable pair of workers."""

import asyncio
import contextlib

import httpx

PERIOD = 0.1
TRY_LIMIT = 2.0


async def until_serving(endpoint: str, stop: asyncio.Event, limit: float) -> bool:
    """False: `limit` seconds passed, or `stop` was set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit), httpx.AsyncClient(timeout=TRY_LIMIT, trust_env=False) as client:
            while not await _is_serving(client, endpoint):
                if await _set_within(stop, PERIOD):
                    return False
            return True
    return False


async def _is_serving(client: httpx.AsyncClient, endpoint: str) -> bool:
    try:
        return (await client.get(f"{endpoint}/ready")).status_code == 200
    except httpx.HTTPError:
        return False


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
