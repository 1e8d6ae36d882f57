"""Flow control: who does not read stops who writes, and nothing is lost over it."""

from __future__ import annotations

import random
from typing import Any

import pytest

MIB = 1024 * 1024
CONTENT = random.Random(1).randbytes(16 * MIB)
"""More than Linux keeps for a connection while nobody reads: some 4 MiB, on the writing side."""


async def test_a_reader_that_pauses_gets_no_data(net: Any) -> None:
    near, far = await net.pair()
    assert far.transport.is_reading()
    far.transport.pause_reading()
    assert not far.transport.is_reading()
    near.transport.write(b"first, ")
    await net.settled()
    assert far.calls == ["made"]
    near.transport.write(b"second")
    await net.settled()
    assert far.calls == ["made"]
    far.transport.resume_reading()
    assert far.transport.is_reading()
    await far.has(b"first, second")


async def test_data_does_not_come_within_resume_reading(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(b"data")
    await net.settled()
    far.transport.resume_reading()
    assert far.calls == ["made"]
    await far.has(b"data")


async def test_pausing_and_resuming_twice_is_as_good_as_once(net: Any) -> None:
    near, far = await net.pair()
    far.transport.resume_reading()
    far.transport.pause_reading()
    far.transport.pause_reading()
    near.transport.write(b"data")
    await net.settled()
    assert far.calls == ["made"]
    far.transport.resume_reading()
    far.transport.resume_reading()
    await far.has(b"data")


async def test_pausing_within_data_received_holds_from_then_on(net: Any) -> None:
    # In connection_made, uvloop ignores it.
    near, far = await net.pair(far={"data": lambda side: side.transport.pause_reading()})
    near.transport.write(CONTENT)
    pieces = 0
    while len(far.received) < len(CONTENT):
        pieces += 1
        await far.until(lambda pieces=pieces: len(far.pieces) == pieces)
        if pieces <= 3:
            await net.settled()
            assert len(far.pieces) == pieces
        far.transport.resume_reading()
    assert far.received == CONTENT
    assert pieces > 3


async def test_resuming_and_pausing_at_once_lets_nothing_through(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(b"data")
    await net.settled()
    far.transport.resume_reading()
    far.transport.pause_reading()
    await net.settled()
    assert far.calls == ["made"]
    far.transport.resume_reading()
    await far.has(b"data")


async def test_a_reader_that_pauses_may_write(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    far.transport.write(b"I listen later")
    await near.has(b"I listen later")


async def test_a_writer_is_paused_while_nobody_reads_and_resumed_afterwards(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(CONTENT)
    # Within the call, so that who asks afterwards knows.
    assert near.calls == ["made", "pause"]
    await net.settled()
    assert near.calls == ["made", "pause"]
    assert near.transport.get_write_buffer_size() > 0
    far.transport.resume_reading()
    await near.until(lambda: "resume" in near.calls)
    await far.has(CONTENT)
    assert near.calls == ["made", "pause", "resume"]
    assert near.transport.get_write_buffer_size() == 0


async def test_many_small_writes_fill_up_too(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    at = 0
    while "pause" not in near.calls:
        assert at < len(CONTENT), "nothing holds the writer back"
        near.transport.write(CONTENT[at : at + 10_000])
        at += 10_000
    near.transport.write(b"written while paused")
    far.transport.resume_reading()
    await far.has(CONTENT[:at] + b"written while paused")
    await near.until(lambda: "resume" in near.calls)


async def test_the_limits_say_when_the_writer_is_paused_and_resumed(net: Any) -> None:
    sizes = []

    def note_size(side: Any) -> None:
        sizes.append(side.transport.get_write_buffer_size())

    near, far = await net.pair(near={"pause": note_size, "resume": note_size})
    near.transport.set_write_buffer_limits(high=1_000_000, low=50_000)
    assert near.transport.get_write_buffer_limits() == (50_000, 1_000_000)
    far.transport.pause_reading()
    while "pause" not in near.calls:
        await net.settled()
        assert near.transport.get_write_buffer_size() <= 1_000_000
        near.transport.write(bytes(300_000))
    far.transport.resume_reading()
    await near.until(lambda: "resume" in near.calls)
    at_pause, at_resume = sizes
    assert at_pause > 1_000_000
    assert at_resume <= 50_000


async def test_with_a_limit_of_0_anything_that_is_not_taken_at_once_pauses(net: Any) -> None:
    sizes = []
    near, far = await net.pair(
        near={"resume": lambda side: sizes.append(side.transport.get_write_buffer_size())}
    )
    near.transport.set_write_buffer_limits(high=0)
    assert near.transport.get_write_buffer_limits() == (0, 0)
    near.transport.write(b"taken at once")
    await far.has(b"taken at once")
    assert near.calls == ["made"]
    far.transport.pause_reading()
    near.transport.write(CONTENT)
    assert near.calls == ["made", "pause"]
    far.transport.resume_reading()
    await near.until(lambda: "resume" in near.calls)
    assert sizes == [0]


async def test_one_limit_follows_from_the_other(net: Any) -> None:
    near, _ = await net.pair()
    near.transport.set_write_buffer_limits(high=100)
    assert near.transport.get_write_buffer_limits() == (25, 100)
    near.transport.set_write_buffer_limits(low=100)
    assert near.transport.get_write_buffer_limits() == (100, 400)
    near.transport.set_write_buffer_limits()
    assert near.transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
    with pytest.raises(ValueError, match="high"):
        near.transport.set_write_buffer_limits(high=1, low=2)


async def test_who_writes_when_told_to_resume_gets_everything_through(net: Any) -> None:
    at = 0

    def write_on(side: Any) -> None:
        nonlocal at
        while at < len(CONTENT) and side.calls.count("pause") == side.calls.count("resume"):
            side.transport.write(CONTENT[at : at + 100_000])
            at += 100_000

    near, far = await net.pair(near={"made": write_on, "resume": write_on})
    await far.has(CONTENT)
    # A writer that keeps to the signals has little in the buffer, so it is paused many times.
    assert at >= len(CONTENT)
    assert near.transport.get_write_buffer_size() == 0


async def test_a_slow_reader_holds_back_one_connection_only(net: Any) -> None:
    slow_near, slow_far = await net.pair()
    near, far = await net.pair()
    slow_far.transport.pause_reading()
    slow_near.transport.write(CONTENT)
    near.transport.write(CONTENT)
    await far.has(CONTENT)
    assert slow_far.calls == ["made"]


@pytest.mark.parametrize("call", ["pause", "resume"])
async def test_what_pausing_or_resuming_raises_is_told_and_harms_nothing(
    net: Any, problems: list[dict[str, Any]], call: str
) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError("cannot do that")

    near, far = await net.pair(near={call: fail})
    near.transport.write(CONTENT)
    await far.has(CONTENT)
    await near.until(lambda: "resume" in near.calls)
    near.transport.write(b", and more")
    await far.has(CONTENT + b", and more")
    (context,) = problems
    assert isinstance(context["exception"], ZeroDivisionError)
    assert context["message"]
    problems.clear()
