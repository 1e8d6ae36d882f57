"""The end of data in one direction, and what the other direction may still do."""

from __future__ import annotations

import random
from typing import Any

import pytest

MIB = 1024 * 1024
CONTENT = random.Random(1).randbytes(16 * MIB)
"""More than Linux keeps for a connection while nobody reads: some 4 MiB, on the writing side."""


async def test_after_write_eof_the_other_side_may_still_answer(net: Any) -> None:
    near, far = await net.pair(far={"keeps_open": True})
    assert near.transport.can_write_eof()
    near.transport.write(b"question")
    near.transport.write_eof()
    await far.until(lambda: "eof" in far.calls)
    assert far.received == b"question"
    assert not far.transport.is_closing()
    far.transport.write(b"a long answer" * 10_000)
    await near.has(b"a long answer" * 10_000)
    far.transport.close()
    assert await near.ended() is None
    assert await far.ended() is None
    assert near.calls[-2:] == ["eof", "lost"]
    assert far.calls == ["made", "data", "eof", "lost"]


async def test_write_eof_is_for_good(net: Any) -> None:
    near, far = await net.pair(far={"keeps_open": True})
    near.transport.write_eof()
    with pytest.raises(RuntimeError):
        near.transport.write(b"one more thing")
    near.transport.write_eof()
    await far.until(lambda: "eof" in far.calls)
    await net.settled()
    assert far.calls == ["made", "eof"]
    assert near.calls == ["made"]


async def test_the_end_of_data_comes_after_the_data(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(CONTENT)
    near.transport.write_eof()
    await net.settled()
    assert far.calls == ["made"]
    far.transport.resume_reading()
    assert await far.ended() is None
    assert far.received == CONTENT
    assert far.calls[-3:] == ["data", "eof", "lost"]
    assert await near.ended() is None


@pytest.mark.parametrize("answer", [None, False])
async def test_a_side_that_does_not_keep_open_closes_at_the_end_of_data(
    net: Any, answer: bool | None
) -> None:
    near, far = await net.pair(far={"keeps_open": answer})
    near.transport.write_eof()
    assert await far.ended() is None
    assert await near.ended() is None
    assert far.calls == ["made", "eof", "lost"]
    assert near.calls == ["made", "eof", "lost"]


async def test_a_side_that_closes_at_the_end_of_data_flushes_its_answer(net: Any) -> None:
    near, far = await net.pair(far={"eof": lambda side: side.transport.write(CONTENT)})
    near.transport.write_eof()
    assert await near.ended() is None
    assert near.received == CONTENT
    assert await far.ended() is None


async def test_two_half_closed_sides_that_keep_open_stay_until_they_close(net: Any) -> None:
    near, far = await net.pair(near={"keeps_open": True}, far={"keeps_open": True})
    near.transport.write_eof()
    far.transport.write_eof()
    await near.until(lambda: "eof" in near.calls)
    await far.until(lambda: "eof" in far.calls)
    await net.settled()
    assert not near.transport.is_closing()
    assert not far.transport.is_closing()
    near.transport.close()
    assert await near.ended() is None
    assert "lost" not in far.calls
    far.transport.close()
    assert await far.ended() is None
    assert near.calls == far.calls == ["made", "eof", "lost"]


async def test_closing_after_write_eof_ends_both_sides(net: Any) -> None:
    near, far = await net.pair()
    near.transport.write(b"all")
    near.transport.write_eof()
    near.transport.close()
    assert await near.ended() is None
    assert await far.ended() is None
    assert far.calls == ["made", "data", "eof", "lost"]


async def test_a_reader_that_pauses_hears_of_the_end_when_it_resumes(net: Any) -> None:
    near, far = await net.pair()
    far.transport.pause_reading()
    near.transport.write(b"before the end")
    near.transport.close()
    await near.ended()
    await net.settled()
    assert far.calls == ["made"]
    far.transport.resume_reading()
    assert await far.ended() is None
    assert far.calls == ["made", "data", "eof", "lost"]
    assert far.received == b"before the end"


async def test_what_eof_received_raises_ends_the_connection(
    net: Any, problems: list[dict[str, Any]]
) -> None:
    def fail(_: Any) -> None:
        raise ZeroDivisionError("no end")

    near, far = await net.pair(far={"eof": fail})
    near.transport.write_eof()
    error = await far.ended()
    assert isinstance(error, ZeroDivisionError)
    assert [context["exception"] for context in problems] == [error]
    await near.ended()
    problems.clear()
