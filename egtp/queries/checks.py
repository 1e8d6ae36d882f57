"""Checks the arguments of a query where they are given, before a wrong one fails inside (pure)."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Final

from egtp.errors import FastFail, FastFailReason, LocalProtocolError

__all__ = [
    "TIMEOUT_S_MAX",
    "check_body",
    "check_notice",
    "check_promises",
    "check_soft_timeout",
    "check_timeout",
]

TIMEOUT_S_MAX: Final = 2**32 / 1000 - 1
"""Lifetimes are 32 bits of milliseconds on the wire: about seven weeks."""


def check_timeout(hard_s: float) -> None:
    """Raises :class:`LocalProtocolError` unless ``hard_s`` can be a hard timeout."""
    if isinstance(hard_s, bool) or not isinstance(hard_s, int | float):
        raise LocalProtocolError(f"a timeout must be a number of seconds, not {hard_s!r}")
    if not 0 < hard_s <= TIMEOUT_S_MAX:
        raise LocalProtocolError(
            f"a hard timeout must be above 0 and at most {TIMEOUT_S_MAX:.0f} s, not {hard_s!r}"
        )


def check_soft_timeout(soft_s: float, hard_s: float) -> None:
    """Raises :class:`LocalProtocolError` unless ``soft_s`` fits as a soft timeout."""
    if isinstance(soft_s, bool) or not isinstance(soft_s, int | float):
        raise LocalProtocolError(f"a timeout must be a number of seconds, not {soft_s!r}")
    if not 0 < soft_s < hard_s:
        raise LocalProtocolError("a soft timeout must be above 0 and below the hard timeout")


def check_promises(idempotent: object, early: object) -> None:
    """Raises :class:`LocalProtocolError` unless these are True or False; ``early`` may be None."""
    if not isinstance(idempotent, bool):
        raise LocalProtocolError(f"idempotent must be True or False, not {idempotent!r}")
    if not isinstance(early, bool | None):
        raise LocalProtocolError(f"early must be True, False or None, not {early!r}")


def check_notice(on_soft_timeout: object, soft_timeout_s: float | None) -> None:
    """Raises :class:`LocalProtocolError` for a callback that would never run."""
    if soft_timeout_s is None:
        raise LocalProtocolError("on_soft_timeout needs soft_timeout_s")
    if not callable(on_soft_timeout) or iscoroutinefunction(on_soft_timeout):
        raise LocalProtocolError(
            "on_soft_timeout must be a plain function: it is called, not awaited"
        )


def check_body(body: object, most: int) -> bytes:
    """The body as plain bytes, for one that is not, such as a :class:`NodeId`.

    Raises :class:`LocalProtocolError` for a body that is not bytes at all, and :class:`FastFail`
    for one of more than ``most`` bytes.
    """
    if not isinstance(body, bytes):
        raise LocalProtocolError(f"a body must be bytes, not {type(body).__name__}")
    if len(body) > most:
        raise FastFail(
            f"the body is too large: {len(body)} bytes, at most {most} (body_bytes_max)",
            reason=FastFailReason.TOO_LARGE,
        )
    return bytes(body)
