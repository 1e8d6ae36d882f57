"""asyncio's streams, which are built from transports and protocols, on top of any event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

SERVER, CLIENT = "127.0.0.1", "127.0.0.2"
MIB = 1024 * 1024

Streams: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def dial(
    problems: list[dict[str, Any]],
) -> AsyncIterator[Callable[[Handler], Awaitable[Streams]]]:
    """Serve with a handler, and connect to it."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []
    handlers: list[asyncio.Task[Any] | None] = []

    async def open_streams(handler: Handler) -> Streams:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.append(asyncio.current_task())
            writers.append(writer)
            await handler(reader, writer)

        server = await asyncio.start_server(handle, SERVER, 0)
        servers.append(server)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address, local_addr=(CLIENT, 0))
        writers.append(writer)
        return reader, writer

    async with asyncio.timeout(10):
        yield open_streams
        for server in servers:
            server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await asyncio.gather(*(task for task in handlers if task is not None))


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each line."""
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def test_lines_are_answered_one_by_one(dial: Any) -> None:
    reader, writer = await dial(shout)
    for line in (b"one\n", b"two\n", b"\n"):
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line.upper()


async def test_lines_written_at_once_are_read_one_by_one(dial: Any) -> None:
    reader, writer = await dial(shout)
    writer.writelines([b"one\ntw", b"o\nthree", b"\n"])
    assert [await reader.readline() for _ in range(3)] == [b"ONE\n", b"TWO\n", b"THREE\n"]


async def test_names_are_told_by_writers(dial: Any) -> None:
    told: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.set_result((writer.get_extra_info("peername"), writer.get_extra_info("sockname")))

    _, writer = await dial(tell)
    near = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    assert await told == near


async def test_reading_to_the_end_gives_everything(dial: Any) -> None:
    content = bytes(range(256)) * 4096

    async def give(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        writer.close()

    reader, _ = await dial(give)
    assert await reader.read() == content
    assert reader.at_eof()
    assert await reader.read() == await reader.readline() == b""


async def test_exactly_so_many_bytes_are_read(dial: Any) -> None:
    async def give(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(10):
            writer.write(bytes([number]) * 3)
            await writer.drain()
        writer.close()

    reader, _ = await dial(give)
    assert await reader.readexactly(4) == b"\0\0\0\1"
    assert await reader.readexactly(1) == b"\1"
    assert await reader.readuntil(b"\3") == b"\1\2\2\2\3"
    with pytest.raises(asyncio.IncompleteReadError) as raised:
        await reader.readexactly(100)
    assert raised.value.partial == b"\3\3" + b"".join(bytes([n]) * 3 for n in range(4, 10))


async def test_the_answer_comes_after_the_end_of_the_question(dial: Any) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        writer.write(b"%d" % len(question))
        writer.close()

    reader, writer = await dial(count)
    writer.write(bytes(300_000))
    writer.write_eof()
    assert await reader.read() == b"300000"


async def test_drain_waits_for_a_reader_that_does_not_read(dial: Any) -> None:
    read_on = asyncio.Event()
    received = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        writer.write(b"ready\n")
        await read_on.wait()
        while data := await reader.read(65_536):
            received += len(data)
        writer.write(b"done\n")
        writer.close()

    reader, writer = await dial(slow)
    assert await reader.readline() == b"ready\n"
    written = 0
    with pytest.raises(TimeoutError):
        while written < 64 * MIB:
            writer.write(bytes(MIB))
            written += MIB
            async with asyncio.timeout(0.05):
                await writer.drain()
    read_on.set()
    await writer.drain()
    writer.write_eof()
    assert await reader.readline() == b"done\n"
    assert received == written


async def test_closing_is_waited_for_until_everything_is_sent(dial: Any) -> None:
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.set_result(await reader.read())
        writer.close()

    _, writer = await dial(take)
    writer.write(bytes(4 * MIB))
    assert not writer.is_closing()
    writer.close()
    assert writer.is_closing()
    await writer.wait_closed()
    assert len(await received) == 4 * MIB


async def test_a_reset_is_raised_by_reading_and_by_draining(dial: Any) -> None:
    gone = asyncio.Event()

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        # Nobody will read the rest, so that the other side is reset and not just ended.
        transport: Any = writer.transport
        transport.pause_reading()
        writer.write(b"!")
        await gone.wait()
        transport.abort()

    reader, writer = await dial(leave)
    writer.write(b"?")
    assert await reader.readexactly(1) == b"!"
    writer.write(b"nobody reads this")
    await writer.drain()
    # By the time that this is answered, that has arrived.
    other_reader, other_writer = await dial(shout)
    other_writer.write(b"arrived?\n")
    assert await other_reader.readline() == b"ARRIVED?\n"
    gone.set()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(ConnectionResetError):
        await writer.drain()
    with pytest.raises(ConnectionResetError):
        await writer.wait_closed()


async def test_a_refused_port_is_refused_to_streams_too(dial: Any) -> None:
    _, writer = await dial(shout)
    host, port = writer.get_extra_info("sockname")
    # Nobody listens on the port of a client.
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(host, port, local_addr=(SERVER, 0))


async def test_a_reader_may_be_cancelled_and_reads_on(dial: Any) -> None:
    reader, writer = await dial(shout)
    waiting = asyncio.ensure_future(reader.readline())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    writer.write(b"still here\n")
    assert await reader.readline() == b"STILL HERE\n"
