"""Stand-ins for ``datetime.datetime`` and ``datetime.date`` that do not read the real clock.

Their methods are written in C and cannot be patched one by one, so the whole class is replaced: by
a subclass that creates objects of the real class, and passes for it in ``isinstance`` and as a key.
"""

from __future__ import annotations

import contextlib
import copyreg
import datetime
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

__all__ = ["DATES", "dates_are_pickled", "dates_like"]

DATES: Final[tuple[type[Any], ...]] = (datetime.datetime, datetime.date)
"""The real classes."""


class _Machine(Protocol):
    def unix_time(self) -> float: ...


def dates_like(real: type[Any], machine_to_ask: Callable[[str, str], _Machine | None]) -> type[Any]:
    """A stand-in for the class ``real``. ``machine_to_ask``, called with the name and kind of what
    was called, returns the machine whose clock counts, or None for the real clock."""

    class Kind(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return super().__instancecheck__(instance) or (
                cls is StandIn and isinstance(instance, real)
            )

        def __subclasscheck__(cls, other: Any) -> bool:
            return super().__subclasscheck__(other) or (cls is StandIn and issubclass(other, real))

        def __eq__(cls, other: object) -> bool:
            return other is cls or (cls is StandIn and other is real)

        def __hash__(cls) -> int:
            return hash(real) if cls is StandIn else type.__hash__(cls)

    class StandIn(real, metaclass=Kind):  # type: ignore[misc]
        def __new__(cls, *args: Any, **options: Any) -> Any:
            return real.__new__(real if cls is StandIn else cls, *args, **options)

        @classmethod
        def today(cls) -> Any:
            machine = machine_to_ask(f"datetime.{real.__name__}.today", "clock")
            return real.today() if machine is None else real.fromtimestamp(machine.unix_time())

    if real is datetime.datetime:

        def now(_: type[Any], tz: datetime.tzinfo | None = None) -> Any:
            machine = machine_to_ask("datetime.datetime.now", "clock")
            return real.now(tz) if machine is None else real.fromtimestamp(machine.unix_time(), tz)

        def utcnow(_: type[Any]) -> Any:
            machine = machine_to_ask("datetime.datetime.utcnow", "clock")
            if machine is None:
                return real.utcnow()
            return real.fromtimestamp(machine.unix_time(), datetime.UTC).replace(tzinfo=None)

        StandIn.now, StandIn.utcnow = classmethod(now), classmethod(utcnow)
    StandIn.__name__ = StandIn.__qualname__ = real.__name__
    StandIn.__module__ = real.__module__
    return StandIn


@contextlib.contextmanager
def dates_are_pickled() -> Iterator[None]:
    """Within this context, dates are pickled without the name of their class, under which pickle
    would find the stand-in."""
    for real in DATES:
        copyreg.pickle(real, _reduced)
    try:
        yield
    finally:
        for real in DATES:
            del copyreg.dispatch_table[real]


def _reduced(date: Any) -> tuple[Any, ...]:
    real, parts = date.__reduce__()[:2]
    return _date, (DATES.index(real), *parts)


def _date(number: int, *parts: Any) -> Any:
    return DATES[number](*parts)
