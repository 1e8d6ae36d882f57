"""Tells of exceptions that code of the application, or a lookup service, should not have raised.

What goes wrong once may go wrong with every query: reporting it in full each time would cause a
flood that anybody could set off.
"""

from __future__ import annotations

import asyncio

from egtp.limits.repetitions import Repetitions

__all__ = ["BugReports", "what_and_where"]


class BugReports:
    """Passes exceptions to the exception handler of the event loop: the same message and error once
    a minute at most, with how often it was raised meanwhile."""

    def __init__(self) -> None:
        self._told = Repetitions()

    def report(self, message: str, error: BaseException, loop: asyncio.AbstractEventLoop) -> None:
        """``message`` says whose code raised ``error``."""
        times = self._told.times((message, *what_and_where(error)), loop.time())
        if times:
            if times > 1:
                message = f"{message}, {times} times since this was last reported"
            loop.call_exception_handler({"message": message, "exception": error})


def what_and_where(error: BaseException) -> tuple[str, str, int]:
    """What identifies an error: two with equal results count as the same."""
    name, file, line = type(error).__qualname__, "", 0
    place = error.__traceback__
    while place is not None:
        file, line = place.tb_frame.f_code.co_filename, place.tb_lineno
        place = place.tb_next
    return name, file, line
