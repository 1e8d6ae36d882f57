"""What a scenario claims, and whether it held."""

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
    """What was seen, in a few words, one thing a line."""


class Expectations:
    """Collects the claims of one scenario, and tells each to whoever watches."""

    def __init__(
        self,
        tell: Callable[[Expectation], None] = lambda _: None,
        words: Callable[[object], str] = str,
    ) -> None:
        """``words`` puts what was seen into words."""
        self._tell = tell
        self._words = words
        self.all: Final[list[Expectation]] = []

    def that(self, text: str, held: bool, detail: object = "") -> bool:
        """Claim ``text``. Returns whether it held; the story goes on in any case."""
        expectation = Expectation(text, bool(held), self._words(detail))
        self.all.append(expectation)
        self._tell(expectation)
        return expectation.held


class Stopped(Exception):
    """The story cannot go on, since something in it did not happen: ``text`` says what."""

    def __init__(self, text: str, detail: str) -> None:
        super().__init__(f"{text}: {detail}")
        self.text = text
        self.detail = detail


async def within(limit_s: float, text: str, happens: Awaitable[_T]) -> _T:
    """Wait for what ``text`` says. Raises :class:`Stopped` if it takes longer than the limit."""
    try:
        async with asyncio.timeout(limit_s):
            return await happens
    except TimeoutError:
        raise Stopped(text, f"not within {limit_s:g} s") from None
