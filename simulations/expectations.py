"""What a scenario claims, and whether it held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = ["Expectation", "Expectations"]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One claim of a scenario."""

    scenario: str
    text: str
    held: bool
    detail: str


class Expectations:
    """Collects the claims of a run, and tells each to whoever watches."""

    def __init__(self, tell: Callable[[Expectation], None]) -> None:
        self._tell = tell
        self.all: Final[list[Expectation]] = []

    def that(self, scenario: str, text: str, held: bool, detail: object = "") -> None:
        expectation = Expectation(scenario, text, bool(held), str(detail))
        self.all.append(expectation)
        self._tell(expectation)

    @property
    def failed(self) -> list[Expectation]:
        return [expectation for expectation in self.all if not expectation.held]
