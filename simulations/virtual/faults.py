"""Fault: something that is temporarily wrong with the world."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

__all__ = ["Fault", "Faults"]

_T = TypeVar("_T")


class Fault:
    """Something that is wrong from now until :meth:`heal`, or until the end of a ``with`` block.

    ::

        with network.partition([alice], [bob]):
            ...
    """

    def __init__(self, text: str, heal: Callable[[], None]) -> None:
        self.text: Final = text
        self._heal: Callable[[], None] | None = heal

    @property
    def is_healed(self) -> bool:
        """Whether the fault is over."""
        return self._heal is None

    def heal(self) -> None:
        """End the fault. A second call does nothing."""
        heal, self._heal = self._heal, None
        if heal is not None:
            heal()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.heal()


class Faults(Generic[_T]):
    """The faults of one kind at one place. They may overlap and be healed in any order."""

    def __init__(self) -> None:
        self._there: dict[int, _T] = {}
        self._begun = 0

    @property
    def last(self) -> _T | None:
        """The fault in effect: of those not healed, the one that began last."""
        return self._there[max(self._there)] if self._there else None

    def begin(self, fault: _T) -> Callable[[], None]:
        """Begin a fault, and return the function that heals it."""
        self._begun += 1
        number = self._begun
        self._there[number] = fault

        def heal() -> None:
            del self._there[number]

        return heal
