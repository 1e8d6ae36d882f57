"""The claims of a scenario, and whether they held."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

__all__ = ["Expectation", "Expectations", "Stopped", "within"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One claim of a scenario."""

    text: str
    held: bool
    detail: str = ""
    """What was observed, briefly, one fact per line."""


class Expectations:
    """Collects the claims of one scenario, and reports each as it is made."""

    def __init__(
        self,
        tell: Callable[[Expectation], None] = lambda _: None,
        words: Callable[[object], str] = str,
    ) -> None:
        """``words`` turns an observed detail into text."""
        self._tell = tell
        self._words = words
        self.all: Final[list[Expectation]] = []

    def that(self, text: str, held: bool, detail: object = "") -> bool:
        """Claim ``text``. Returns ``held``; the story goes on in either case."""
        expectation = Expectation(text, bool(held), self._words(detail))
        self.all.append(expectation)
        self._tell(expectation)
        return expectation.held


class Stopped(Exception):
    """The story cannot go on: ``text`` says what should have happened and did not."""

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(f"{text}: {detail}")
        self.text = text
        self.detail = detail


async def within(limit_s: float, text: str, happens: Awaitable[_T]) -> _T:
    """Wait for ``happens``. Raises :class:`Stopped` with ``text`` after ``limit_s`` seconds."""
    try:
        async with asyncio.timeout(limit_s):
            return await happens
    except TimeoutError:
        raise Stopped(text, f"not within {limit_s:g} s") from None
