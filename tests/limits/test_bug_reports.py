"""What other people's code raises is told to the event loop, now and then."""

from __future__ import annotations

import asyncio
from typing import Any

from egtp.bug_reports import BugReports, what_and_where
from egtp.limits.repetitions import AGAIN_S
from simulations.virtual import Network, simulate


def test_the_same_error_is_told_again_after_a_while_with_how_often_it_was_raised() -> None:
    told: list[Any] = []

    async def story(network: Network) -> None:
        loop, bugs = network.loop, BugReports()
        loop.set_exception_handler(lambda _, context: told.append(context))
        for _ in range(3):
            bugs.report("it raised", error(1), loop)
        bugs.report("another one raised", error(1), loop)
        await asyncio.sleep(AGAIN_S)
        bugs.report("it raised", last, loop)

    last = error(2)
    simulate(story)
    assert [context["message"] for context in told] == [
        "it raised",
        "another one raised",
        "it raised, 3 times since this was last reported",
    ]
    assert told[-1]["exception"] is last


def error(number: int) -> ZeroDivisionError:
    try:
        if number:
            raise ZeroDivisionError
        raise ZeroDivisionError
    except ZeroDivisionError as failed:
        return failed


def test_the_same_error_at_another_place_is_another_one() -> None:
    assert what_and_where(error(0)) != what_and_where(error(1)) == what_and_where(error(2))
    assert what_and_where(error(0))[:2] == ("ZeroDivisionError", __file__)
