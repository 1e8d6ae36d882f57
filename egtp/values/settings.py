"""Checks settings and limits where they are given, before a wrong one fails inside (pure)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from egtp.errors import InvalidConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["check_count", "check_seconds", "check_settings", "check_yes_or_no"]


def check_settings(settings: DataclassInstance, may_be_zero: Collection[str]) -> None:
    """Raises :class:`InvalidConfig` for a value that does not have its field's type, and for a
    number that makes no sense: infinite, NaN, negative, or zero where that is not allowed."""
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        _check(setting.name, str(setting.type), value, may_be_zero)


def check_yes_or_no(**settings: object) -> None:
    """Raises :class:`InvalidConfig` for anything but True and False, such as a string."""
    for name, value in settings.items():
        if not isinstance(value, bool):
            raise InvalidConfig(f"{name} must be True or False, not {value!r}")


def check_count(least: int, **settings: object) -> None:
    """Raises :class:`InvalidConfig` for anything but an integer of at least ``least``."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidConfig(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_seconds(*, or_0: bool = False, **settings: Any) -> None:
    """Raises :class:`InvalidConfig` for anything but a finite number above 0, or 0 if ``or_0``."""
    for name, value in settings.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and 0 <= value < math.inf and (value or or_0)):
            least = ", 0 or more" if or_0 else " above 0"
            raise InvalidConfig(f"{name} must be a number of seconds{least}, not {value!r}")


def _check(name: str, kind: str, value: object, may_be_zero: Collection[str]) -> None:
    if kind == "str" and not isinstance(value, str):
        raise InvalidConfig(f"{name} must be a string, not {value!r}")
    if kind == "bool":
        check_yes_or_no(**{name: value})
    if kind not in ("int", "float", "float | None") or (kind == "float | None" and value is None):
        return
    number = int if kind == "int" else (int, float)
    if isinstance(value, bool) or not isinstance(value, number):
        whole = "whole " if kind == "int" else ""
        raise InvalidConfig(f"{name} must be a {whole}number, not {value!r}")
    if not math.isfinite(value) or value < 0 or (value == 0 and name not in may_be_zero):
        or_zero = " or 0" if name in may_be_zero else ""
        raise InvalidConfig(f"{name} must be a positive number{or_zero}, not {value!r}")
