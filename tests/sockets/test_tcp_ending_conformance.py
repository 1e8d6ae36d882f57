"""How connections end: closed, aborted, reset, and by writing to nobody."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

MIB = 1024 * 1024
CONTENT = random.Random(1).randbytes(16 * MIB)
"""More than Linux keeps for a connection while nobody reads: some 4 MiB, on the writing side."""
End = Callable[[Any], None]


def close(side: Any) -> None:
    side.transport.close()


def abort(side: Any) -> None:
    side.transport.abort()


both_ways = pytest.mark.parametrize("end", [close, abort])


# close


async def test_closing_is_the_end_of_the_data_for_the_other_side(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(b"the last words")
    near.transport.close()
    assert await near.ended() is None
    assert await far.ended() is None
    assert near.calls == ["made", "lost"]
    assert far.calls == ["made", "data", "eof", "lost"]
    assert far.received == b"the last words"


async def test_the_server_may_be_the_one_that_closes(net: Any) -> None:
    near, far = await net.pair()
    far.transport.write(b"the last words")
    far.transport.close()
    assert await far.ended() is None
    assert await near.ended() is None
    assert near.calls == ["made", "data", "eof", "lost"]
    assert far.calls == ["made", "lost"]


async def test_closing_flushes_what_is_written(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(CONTENT)
    near.transport.close()
    assert await far.ended() is None
    assert far.received == CONTENT
    assert far.calls[-2:] == ["eof", "lost"]
    assert await near.ended() is None


async def test_closing_waits_for_a_reader_that_pauses(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(CONTENT)
    near.transport.close()
    await net.settled()
    assert near.calls == ["made", "pause"]
    assert near.transport.is_closing()
    far.transport.resume_reading()
    assert await far.ended() is None
    assert far.received == CONTENT
    assert await near.ended() is None
    assert near.calls == ["made", "pause", "resume", "lost"]


@both_ways
async def test_the_loss_is_told_later_not_within_the_call(net: Any, end: End) -> None:
    near, _ = await net.pair()
    end(near)
    assert near.calls == ["made"]
    assert near.transport.is_closing()
    assert await near.ended() is None


@both_ways
async def test_nothing_is_called_after_the_loss(net: Any, end: End) -> None:
    near, far = await net.pair()
    far.transport.write(CONTENT)
    end(near)
    await near.ended()
    before = list(near.calls)
    await far.ended()
    await net.settled()
    assert near.calls == before


@both_ways
async def test_ending_twice_is_as_good_as_once(net: Any, end: End) -> None:
    near, far = await net.pair()
    end(near)
    near.transport.close()
    near.transport.abort()
    await near.ended()
    near.transport.close()
    near.transport.abort()
    await far.ended()
    await net.settled()
    assert near.calls == ["made", "lost"]


@both_ways
async def test_ending_in_connection_made_works_on_the_client(net: Any, end: End) -> None:
    listening = await net.listen()
    near = await net.connect(listening.address, made=end)
    assert await near.ended() is None
    far = await net.accepted(listening)
    assert await far.ended() is None
    assert near.calls == ["made", "lost"]
    assert far.calls == ["made", "eof", "lost"]


@both_ways
async def test_no_data_comes_after_ending_within_data_received(net: Any, end: End) -> None:
    near, far = await net.pair(far={"data": end})
    near.transport.write(CONTENT)
    assert await far.ended() is None
    assert far.calls == ["made", "data", "lost"]
    assert isinstance(await near.ended(), ConnectionResetError | BrokenPipeError)


@both_ways
async def test_ending_within_resume_writing_is_told_once(
    net: Any, problems: list[dict[str, Any]], end: End
) -> None:
    near, far = await net.pair(near={"resume": end})
    near.transport.set_write_buffer_limits(high=0)
    near.transport.write(CONTENT)
    assert await near.ended() is None
    assert await far.ended() is None
    await net.settled()
    assert far.received == CONTENT
    assert near.calls == ["made", "pause", "resume", "lost"]
    # Asyncio wants to tell it twice, has forgotten whom, and complains to its handler.
    problems.clear()


@both_ways
async def test_ending_within_pause_writing_is_told_once(net: Any, end: End) -> None:
    near, far = await net.pair(near={"pause": end})
    near.transport.write(CONTENT)
    assert near.transport.is_closing()
    assert await near.ended() is None
    assert await far.ended() is None
    await net.settled()
    assert near.calls.count("lost") == 1
    assert CONTENT.startswith(far.received)
    assert (far.received == CONTENT) == (end is close)


@both_ways
async def test_ending_within_eof_received_is_told_once(net: Any, end: End) -> None:
    near, far = await net.pair(far={"eof": end, "keeps_open": True})
    near.transport.write_eof()
    assert await far.ended() is None
    assert await near.ended() is None
    await net.settled()
    assert far.calls == ["made", "eof", "lost"]
    assert near.calls == ["made", "eof", "lost"]


async def test_both_sides_may_close_at_the_same_time(net: Any) -> None:
    near, far = await net.pair()
    near.transport.close()
    far.transport.close()
    assert await near.ended() is None
    assert await far.ended() is None


async def test_what_is_written_after_closing_raises_nothing(net: Any) -> None:
    # Whether it is sent depends on the loop, and on whether something was buffered.
    near, far = await net.pair()
    near.transport.write(b"before")
    near.transport.close()
    near.transport.write(b", after")
    assert await near.ended() is None
    assert await far.ended() is None
    assert bytes(far.received) in {b"before", b"before, after"}


async def test_a_lost_transport_answers_questions_and_takes_no_offence(net: Any) -> None:
    # write() does nothing on asyncio, and raises RuntimeError on uvloop.
    near, _ = await net.pair()
    near.transport.close()
    await near.ended()
    assert near.transport.is_closing()
    assert not near.transport.is_reading()
    assert near.transport.get_write_buffer_size() == 0
    near.transport.pause_reading()
    near.transport.resume_reading()
    assert near.calls == ["made", "lost"]


# abort


async def test_aborting_drops_what_is_buffered(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(CONTENT)
    await net.settled()
    near.transport.abort()
    assert await near.ended() is None
    assert near.calls == ["made", "pause", "lost"]
    assert near.transport.get_write_buffer_size() == 0
    far.transport.resume_reading()
    assert isinstance(await far.ended(), ConnectionResetError | None)
    assert len(far.received) < len(CONTENT)
    assert CONTENT.startswith(far.received)


async def test_aborting_with_nothing_left_to_say_is_an_end_for_the_other_side(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(b"all there is")
    await far.has(b"all there is")
    near.transport.abort()
    assert await far.ended() is None
    assert far.calls == ["made", "data", "eof", "lost"]


# Resets


@both_ways
async def test_leaving_data_unread_resets_the_other_side(net: Any, end: End) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(b"nobody reads this")
    await net.settled()
    end(far)
    assert await far.ended() is None
    assert far.calls == ["made", "lost"]
    error = await near.ended()
    assert isinstance(error, ConnectionResetError)
    assert error.errno == 104
    assert near.calls == ["made", "lost"]


@both_ways
async def test_leaving_much_unread_resets_a_writer_that_is_paused(net: Any, end: End) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(CONTENT)
    await net.settled()
    end(far)
    assert await far.ended() is None
    assert isinstance(await near.ended(), ConnectionResetError | BrokenPipeError)
    assert near.calls == ["made", "pause", "lost"]
    assert near.transport.get_write_buffer_size() == 0


async def test_data_that_comes_too_late_resets_its_sender(net: Any) -> None:
    # far is gone before near hears of it.
    near, far = await net.pair()
    far.transport.close()
    near.transport.write(b"too late")
    assert await far.ended() is None
    assert far.received == b""
    assert isinstance(await near.ended(), ConnectionResetError | BrokenPipeError | None)


@both_ways
async def test_writing_to_a_side_that_is_gone_ends_in_a_loss_and_never_raises(
    net: Any, end: End
) -> None:
    near, far = await net.pair(near={"keeps_open": True})
    end(far)
    await far.ended()
    await near.until(lambda: "eof" in near.calls)
    assert not near.transport.is_closing()
    # The first one is answered with a reset, which the next one meets at the latest.
    for _ in range(3):
        if "lost" not in near.calls:
            near.transport.write(b"anybody there?")
        await net.settled()
    assert isinstance(near.lost_with, ConnectionResetError | BrokenPipeError)
    assert near.calls == ["made", "eof", "lost"]
    assert near.transport.is_closing()


async def test_a_reader_that_pauses_hears_of_a_reset_when_it_resumes(net: Any) -> None:
    near, far = await net.pair()
    near.transport.pause_reading()
    far.transport.pause_reading()
    near.transport.write(b"nobody reads this")
    await net.settled()
    far.transport.abort()
    await far.ended()
    await net.settled()
    assert near.calls == ["made"]
    near.transport.resume_reading()
    assert isinstance(await near.ended(), ConnectionResetError)
