"""What waits for a stream: written in order, bounded, and ended without loss or a hanging task."""

import asyncio

import pytest

from pdcluster_worker.splitwise.outbound import Outbound, SlowPeerError


class Sink:
    """Takes messages when it is open."""

    def __init__(self, *, open_: bool = True) -> None:
        self.taken: list[bytes] = []
        self.gate = asyncio.Event()
        if open_:
            self.gate.set()

    async def write(self, message: bytes) -> None:
        await self.gate.wait()
        self.taken.append(message)


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise ValueError("broken")


def test_messages_leave_in_order_and_the_end_waits_for_them() -> None:
    async def main() -> None:
        sink, outbound = Sink(), Outbound()
        outbound.push([b"1", b"2"])
        running = asyncio.create_task(outbound.run(sink.write, forever()))
        await asyncio.sleep(0)
        outbound.push([b"3"])
        outbound.finish()
        outbound.push([b"too late"])
        await asyncio.wait_for(running, 5)
        assert sink.taken == [b"1", b"2", b"3"]
        assert outbound.pending_bytes == 0

    asyncio.run(main())


def test_a_slow_peer_is_cut_off_and_its_write_ends_first() -> None:
    async def main() -> None:
        sink, outbound = Sink(open_=False), Outbound(limit=10)
        running = asyncio.create_task(outbound.run(sink.write, forever()))
        outbound.push([b"123456"])
        await asyncio.sleep(0)
        outbound.push([b"1234567"])
        for _ in range(5):
            await asyncio.sleep(0)
        sink.gate.set()
        with pytest.raises(SlowPeerError):
            await asyncio.wait_for(running, 5)
        assert sink.taken == [b"123456"], "what had begun was written, the rest dropped"

    asyncio.run(main())


def test_what_ends_the_other_side_is_raised() -> None:
    async def main() -> None:
        sink, outbound = Sink(), Outbound()
        with pytest.raises(ValueError, match="broken"):
            await asyncio.wait_for(outbound.run(sink.write, forever(), fails()), 5)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_failed_write_ends_it() -> None:
    async def main() -> None:
        outbound = Outbound()
        outbound.push([b"1"])

        async def write(_message: bytes) -> None:
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(outbound.run(write, forever()), 5)

    asyncio.run(main())


def test_a_write_that_fails_because_the_reader_gave_up_is_not_the_reason() -> None:
    async def main() -> None:
        outbound, over = Outbound(), asyncio.Event()
        outbound.push([b"1"])

        async def write(_message: bytes) -> None:
            await over.wait()
            raise ConnectionError("given up")

        async def read() -> None:
            await asyncio.sleep(0)
            over.set()
            await asyncio.sleep(0)
            raise TimeoutError("silent")

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outbound.run(write, read()), 5)

    asyncio.run(main())


def test_cancelling_leaves_no_task() -> None:
    async def main() -> None:
        sink, outbound = Sink(), Outbound()
        running = asyncio.create_task(outbound.run(sink.write, forever()))
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
