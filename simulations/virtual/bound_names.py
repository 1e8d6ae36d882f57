"""Where programs and libraries bound something of the standard library to a name of their own.

``from time import time`` leaves a name that nobody notices whose module ``time`` is changed later,
and so do a class attribute and a default argument. Each of them is found and, for as long as a
story runs, changed as well. What was put into an object or a closure before the run is not found.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Final

from simulations.virtual.unreal import TRUSTED, Replaced, everything_replaced

__all__ = ["Bound", "bound_names", "replaced"]

MODULES_MAX: Final = 10_000
"""Of which it is remembered what they bound; looking at all of them takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One such name."""

    put: Callable[[Any], None]
    """Changes what it stands for."""
    former: Any
    other: Any
    """What it stands for while a story runs."""


def bound_names() -> Iterator[Bound]:
    """In all modules that are there now."""
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package in TRUSTED or package in sys.stdlib_module_names:
            continue
        if isinstance(module, ModuleType) and not name.startswith(f"{__package__}."):
            yield from _bound_in(module, len(vars(module)))


@functools.cache
def replaced() -> tuple[Replaced, ...]:
    """The same for all runs: a name that a module binds during one keeps its stand-in."""
    return tuple(everything_replaced())


@functools.cache
def _stand_ins() -> Mapping[int, Replaced]:
    return {id(one.real): one for one in replaced()}


@functools.lru_cache(MODULES_MAX)
def _bound_in(module: ModuleType, _size: int) -> tuple[Bound, ...]:
    """``_size`` is how many names it has: with more of them, it is looked at again."""
    return tuple(_search(module))


def _search(module: ModuleType) -> Iterator[Bound]:
    names = vars(module)
    for name, value in list(names.items()):
        if (other := _stand_in(value)) is not None:
            yield Bound(functools.partial(names.__setitem__, name), value, other)
        elif isinstance(value, FunctionType) and value.__module__ == module.__name__:
            yield from _in_defaults(value)
        elif isinstance(value, type) and value.__module__ == module.__name__:
            yield from _in_class(value)


def _in_class(cls: type) -> Iterator[Bound]:
    for name, value in list(vars(cls).items()):
        function = getattr(value, "__func__", value)
        if (other := _stand_in(function)) is not None:
            # A function in C is no method of the class, and neither is what stands in for it.
            kept = other if isinstance(other, type) else staticmethod(other)
            yield Bound(functools.partial(setattr, cls, name), value, kept)
        elif isinstance(function, FunctionType):
            yield from _in_defaults(function)


def _in_defaults(function: FunctionType) -> Iterator[Bound]:
    defaults, by_name = function.__defaults__, function.__kwdefaults__
    if defaults and _any_real(defaults):
        others = tuple(_stand_in(value) or value for value in defaults)
        yield Bound(functools.partial(setattr, function, "__defaults__"), defaults, others)
    if by_name and _any_real(by_name.values()):
        named = {name: _stand_in(value) or value for name, value in by_name.items()}
        yield Bound(functools.partial(setattr, function, "__kwdefaults__"), by_name, named)


def _any_real(values: Iterable[Any]) -> bool:
    return any(_stand_in(value) is not None for value in values)


def _stand_in(value: Any) -> Any:
    found = _stand_ins().get(id(value))
    return None if found is None else found.stand_in
