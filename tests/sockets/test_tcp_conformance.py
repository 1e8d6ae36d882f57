"""What travels on a connection: bytes, whole and in order, and calls of the protocol."""

from __future__ import annotations

import asyncio
import contextvars
import random
from typing import Any

import pytest

MIB = 1024 * 1024
CONTENT = random.Random(1).randbytes(4 * MIB)


def mixed_sizes() -> list[int]:
    """Most writes are small, some are larger than any buffer; 4 MiB in all."""
    rng = random.Random(2)
    sizes: list[int] = []
    while (left := len(CONTENT) - sum(sizes)) > 0:
        sizes.append(min(left, rng.choice([1, 2, 100, 1_400, 16_384, 65_536, 300_000])))
    return sizes


# Bytes


@pytest.mark.parametrize(
    "sizes",
    [[len(CONTENT)], [1] * 10_000, mixed_sizes(), [65_536] * 64],
    ids=["one write", "single bytes", "mixed sizes", "equal sizes"],
)
async def test_bytes_arrive_whole_and_in_order(net: Any, sizes: list[int]) -> None:
    near, far = await net.pair()
    at = 0
    for size in sizes:
        near.transport.write(CONTENT[at : at + size])
        at += size
    await far.has(CONTENT[:at])
    assert near.transport.get_write_buffer_size() == 0


async def test_writes_with_pauses_in_between_arrive_whole_and_in_order(net: Any) -> None:
    near, far = await net.pair()
    at = 0
    for size in mixed_sizes():
        near.transport.write(CONTENT[at : at + size])
        at += size
        await near.until(lambda: near.calls.count("pause") == near.calls.count("resume"))
        await asyncio.sleep(0)
    await far.has(CONTENT)


async def test_both_directions_are_independent(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(CONTENT)
    far.transport.write(CONTENT[::-1])
    await asyncio.gather(far.has(CONTENT), near.has(CONTENT[::-1]))


async def test_question_and_answer_go_to_and_fro(net: Any) -> None:
    near, far = await net.pair()
    for number in range(20):
        near.transport.write(b"question %d" % number)
        await far.has(b"question %d" % number)
        far.transport.write(b"answer %d" % number)
        await near.has(b"answer %d" % number)
        near.received.clear()
        far.received.clear()


async def test_writing_in_connection_made_works_on_both_ends(net: Any) -> None:
    near, far = await net.pair(
        near={"made": lambda side: side.transport.write(b"from the client")},
        far={"made": lambda side: side.transport.write(b"from the server")},
    )
    await near.has(b"from the server")
    await far.has(b"from the client")


async def test_a_side_that_writes_at_once_is_made_before_it_gets_data(net: Any) -> None:
    listening = await net.listen()
    near = await net.connect(
        listening.address, made=lambda side: side.transport.write(b"x" * 100_000)
    )
    far = await net.accepted(listening)
    await far.has(b"x" * 100_000)
    assert far.calls[0] == "made"
    assert near.calls[0] == "made"


async def test_bytes_bytearrays_and_views_may_be_written(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(b"a")
    near.transport.write(bytearray(b"b"))
    near.transport.write(memoryview(b"xcx")[1:2])
    near.transport.writelines([b"d", bytearray(b"e"), memoryview(b"f")])
    await far.has(b"abcdef")
    assert all(type(piece) is bytes for piece in far.pieces)


async def test_writing_nothing_calls_nobody(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(b"")
    near.transport.writelines([])
    await net.settled()
    assert near.calls == far.calls == ["made"]


@pytest.mark.parametrize("wrong", ["text", 5])
async def test_what_is_not_bytes_is_refused_by_write(net: Any, wrong: object) -> None:
    near, far = await net.pair()
    with pytest.raises(TypeError):
        near.transport.write(wrong)
    near.transport.write(b"right")
    await far.has(b"right")


async def test_what_has_waited_for_a_reader_comes_without_its_borders(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    for word in (b"one, ", b"two, ", b"three"):
        near.transport.write(word)
        await net.settled()
    far.transport.resume_reading()
    await far.has(b"one, two, three")
    assert far.pieces == [b"one, two, three"]


# Protocols


async def test_callbacks_run_in_the_context_of_who_opened(net: Any) -> None:
    # Asyncio calls pause_writing in the context of the writer, and what follows a pause of reading
    # in that of who resumed it; uvloop everything in that of who opened.
    opener = contextvars.ContextVar("opener", default="nobody")
    seen: set[tuple[str, str, str]] = set()

    def reactions(end: str) -> Any:
        def note(call: str) -> Any:
            return lambda _: seen.add((end, call, opener.get()))

        return {call: note(call) for call in ("made", "data", "eof", "lost")}

    async def open_as(name: str, opening: Any) -> Any:
        opener.set(name)
        return await opening

    listening = await asyncio.create_task(open_as("server", net.listen(**reactions("far"))))
    near = await asyncio.create_task(
        open_as("client", net.connect(listening.address, **reactions("near")))
    )
    far = await net.accepted(listening)
    near.transport.write(b"question")
    await far.has(b"question")
    far.transport.write(b"answer")
    await near.has(b"answer")
    far.transport.close()
    await near.ended()
    await far.ended()
    assert {who for end, call, who in seen if end == "near"} == {"client"}
    assert {who for end, call, who in seen if end == "far" and call != "lost"} == {"server"}


async def test_what_data_received_raises_ends_the_connection(
    net: Any, problems: list[dict[str, Any]]
) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError("cannot take that")

    near, far = await net.pair(far={"data": fail})
    near.transport.write(b"something")
    error = await far.ended()
    assert isinstance(error, ZeroDivisionError)
    assert far.calls == ["made", "data", "lost"]
    assert [context["exception"] for context in problems] == [error]
    await near.ended()
    problems.clear()


@pytest.mark.parametrize("call", ["made", "lost"])
async def test_what_connection_made_or_lost_raises_is_told_to_the_loops_handler(
    net: Any, problems: list[dict[str, Any]], call: str
) -> None:
    # After connection_made has raised, asyncio reads from the connection, uvloop does not.
    def fail(_: Any) -> None:
        raise ZeroDivisionError("cannot do that")

    near, _ = await net.pair(near={call: fail})
    near.transport.close()
    assert await near.ended() is None
    await net.settled()
    (context,) = problems
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"]
    problems.clear()
