"""A reader that does not read holds nobody up."""

import asyncio
import io
import os

import pytest

from pdcluster_operator.local.output import LARGEST_BACKLOG, PipeText, without_waiting

LINE = "x" * 999 + "\n"


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)
    os.close(reader)


async def read_all(reader, size):
    stream = asyncio.StreamReader(limit=1 << 22)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(os.dup(reader), "rb", 0)
    )
    data = await asyncio.wait_for(stream.readexactly(size), 10)
    transport.close()
    return data


def test_what_the_reader_does_not_take_is_kept_in_order(pipe):
    async def scenario():
        with os.fdopen(os.dup(pipe[1]), "w") as stream, without_waiting(stream) as text:
            assert isinstance(text, PipeText)
            lines = [f"{number} {LINE}" for number in range(200)]
            for line in lines:
                text.write(line)
            whole = "".join(lines).encode()
            assert await read_all(pipe[0], len(whole)) == whole

    asyncio.run(scenario())


def test_beyond_the_limit_text_is_dropped(pipe):
    async def scenario():
        with os.fdopen(os.dup(pipe[1]), "w") as stream, without_waiting(stream) as text:
            for _ in range(3 * LARGEST_BACKLOG // len(LINE)):
                text.write(LINE)
            assert len(text._backlog) <= LARGEST_BACKLOG

    asyncio.run(scenario())


def test_without_a_reader_nothing_happens():
    async def scenario():
        reader, writer = os.pipe()
        with os.fdopen(writer, "w") as stream, without_waiting(stream) as text:
            os.close(reader)
            for _ in range(100):
                text.write(LINE)

    asyncio.run(scenario())


def test_the_stream_that_others_share_stays_as_it_was(pipe):
    async def scenario():
        with os.fdopen(os.dup(pipe[1]), "w") as stream, without_waiting(stream):
            assert os.get_blocking(stream.fileno())

    asyncio.run(scenario())


def test_what_is_no_pipe_is_used_as_it_is(tmp_path):
    with (tmp_path / "file").open("w") as file:
        assert without_waiting(file) is file
    memory = io.StringIO()
    assert without_waiting(memory) is memory
