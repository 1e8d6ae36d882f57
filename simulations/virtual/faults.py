"""Fault: something that is wrong with the world for a while."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["Fault"]


class Fault:
    """From now until :meth:`heal`, or until the end of a ``with`` block::

    with network.partition([alice], [bob]):
        ...
    """

    def __init__(self, text: str, heal: Callable[[], None]) -> None:
        self.text: Final = text
        self._heal: Callable[[], None] | None = heal

    @property
    def is_healed(self) -> bool:
        return self._heal is None

    def heal(self) -> None:
        """A second time does nothing."""
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
