"""The bad network does what the fault tests count on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from link_proxy import LinkMode, LinkProxy, ThreadedLinkProxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
DEADLINE = 5.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(1024):
            writer.write(data)
    await close(writer)


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()


def through_proxy(scenario: Callable[[LinkProxy], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE):
            echoing: list[asyncio.Task[None]] = []
            server = await asyncio.start_server(
                lambda reader, writer: echoing.append(asyncio.ensure_future(echo(reader, writer))), "127.0.0.1", 0
            )
            proxy = LinkProxy(server.sockets[0].getsockname()[1])
            await proxy.start()
            try:
                await scenario(proxy)
            finally:
                await proxy.stop()
                await asyncio.gather(*echoing)
                server.close()
            assert proxy.connections == 0

    asyncio.run(run())


@contextlib.asynccontextmanager
async def connected(proxy: LinkProxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    yield reader, writer
    await close(writer)


async def exchange(streams: Streams, data: bytes) -> bytes:
    streams[1].write(data)
    return await streams[0].readexactly(len(data))


def test_passes_both_ways_and_closes_with_the_client() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        async with connected(proxy) as streams:
            assert await exchange(streams, b"hello" * 100_000) == b"hello" * 100_000
            streams[1].write_eof()
            assert await streams[0].read() == b""

    through_proxy(scenario)


def test_a_stalled_connection_carries_nothing_until_it_passes_again() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        async with connected(proxy) as streams:
            await exchange(streams, b"before")
            proxy.set_mode(LinkMode.STALL)
            answer = asyncio.ensure_future(exchange(streams, b"during"))
            done, _ = await asyncio.wait([answer], timeout=0.1)
            assert not done
            proxy.set_mode(LinkMode.PASS)
            assert await answer == b"during"

    through_proxy(scenario)


def test_a_new_connection_stalls_from_its_start() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        proxy.set_mode(LinkMode.STALL)
        async with connected(proxy) as streams:
            answer = asyncio.ensure_future(exchange(streams, b"anyone?"))
            done, _ = await asyncio.wait([answer], timeout=0.1)
            assert not done
            answer.cancel()

    through_proxy(scenario)


def test_cut_resets_what_is_open_and_serves_the_next() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        async with connected(proxy) as streams:
            await exchange(streams, b"before")
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                await streams[0].readexactly(1)
        async with connected(proxy) as streams:
            assert await exchange(streams, b"after") == b"after"

    through_proxy(scenario)


def test_cut_mode_refuses_until_it_passes() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        proxy.set_mode(LinkMode.CUT)
        async with connected(proxy) as refused:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await exchange(refused, b"x")
        proxy.set_mode(LinkMode.PASS)
        async with connected(proxy) as streams:
            assert await exchange(streams, b"after") == b"after"

    through_proxy(scenario)


def test_delay_keeps_order() -> None:
    async def scenario(proxy: LinkProxy) -> None:
        proxy.set_mode(LinkMode.PASS, delay=0.05)
        loop = asyncio.get_running_loop()
        async with connected(proxy) as streams:
            start = loop.time()
            assert await exchange(streams, bytes(range(256)) * 8) == bytes(range(256)) * 8
            assert loop.time() - start >= 0.1

    through_proxy(scenario)


def test_no_target_means_a_closed_connection() -> None:
    async def run() -> None:
        async with asyncio.timeout(DEADLINE):
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            server.close()
            await server.wait_closed()
            proxy = LinkProxy(port)
            await proxy.start()
            async with connected(proxy) as streams:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await exchange(streams, b"x")
            await proxy.stop()

    asyncio.run(run())


def test_threaded_proxy_leaves_no_thread() -> None:
    with ThreadedLinkProxy(1) as proxy:
        assert proxy.port
        assert proxy.connections == 0
    assert not proxy.thread.is_alive()
