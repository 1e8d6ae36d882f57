"""Names under which programs and libraries bound functions and classes of the standard library.

After ``from time import time``, patching the module ``time`` has no effect on the imported name;
the same holds for class attributes and default arguments. All of these are found and, while a story
runs, patched as well. References that an object or a closure took before the run are not found.
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
"""Modules whose bound names are cached; searching all of them anew takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One such name."""

    put: Callable[[Any], None]
    """Rebinds the name."""
    former: Any
    other: Any
    """Its value while a story runs."""


def bound_names() -> Iterator[Bound]:
    """The bound names in all modules that are loaded now."""
    for name, module in list(sys.modules.items()):
        package = name.partition(".")[0]
        if package in TRUSTED or package in sys.stdlib_module_names:
            continue
        if isinstance(module, ModuleType) and not name.startswith(f"{__package__}."):
            yield from _bound_in(module, len(vars(module)))


@functools.cache
def replaced() -> tuple[Replaced, ...]:
    """The same stand-ins for all runs: a name bound during one run keeps its stand-in."""
    return tuple(everything_replaced())


@functools.cache
def _stand_ins() -> Mapping[int, Replaced]:
    return {id(one.real): one for one in replaced()}


@functools.lru_cache(MODULES_MAX)
def _bound_in(module: ModuleType, _size: int) -> tuple[Bound, ...]:
    """``_size`` is the module's number of names: if it changes, the module is searched again."""
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
            # A C function does not become a method of the class; neither may its stand-in.
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
