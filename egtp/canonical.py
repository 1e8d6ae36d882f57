"""Canonical form: the one and only bytes of a value (R2).

A subset of msgpack. Allowed are nil, bool, integers of 64 bits, byte strings, ASCII strings and
arrays of these nested up to four deep, each in its shortest form. So equal values have equal
bytes, whatever made them, and a hash of the bytes is a hash of the value. Maps, floats,
extension types and longer-than-needed forms do not exist here.

Decoding checks the types and then encodes again and compares: a check of the bytes alone would
still let unsorted maps, NaN, extension types and deep nesting through.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgpack

from egtp.errors import CanonicalError, LocalProtocolError

__all__ = ["ARRAY_LENGTH_MAX", "DEPTH_MAX", "Value", "decode", "encode"]

Value: TypeAlias = "bool | int | bytes | str | tuple[Value, ...] | list[Value] | None"

DEPTH_MAX: Final = 4
"""How deep arrays may nest; the outermost array counts as one."""

ARRAY_LENGTH_MAX: Final = 64
"""How many elements an array may have. The decoder allocates what a length promises, before it
sees the elements; with this limit a promise costs at most half a kilobyte."""


def encode(value: Value) -> bytes:
    """The canonical bytes of ``value``.

    Raises :class:`LocalProtocolError` for a value that has no canonical form.
    """
    _check(value, DEPTH_MAX, LocalProtocolError)
    try:
        return bytes(msgpack.packb(value))
    except (OverflowError, ValueError) as error:
        raise LocalProtocolError(f"no canonical form: {error}") from None


def decode(data: bytes) -> Value:
    """The value whose canonical bytes are ``data``; arrays come back as lists.

    Raises :class:`CanonicalError` for any other bytes. Costs time and memory linear in
    ``len(data)``, whatever lengths the bytes promise.
    """
    try:
        value: Value = msgpack.unpackb(
            data, max_array_len=ARRAY_LENGTH_MAX, max_map_len=0, max_ext_len=0
        )
    except (ValueError, RecursionError) as error:
        # msgpack's own errors and UnicodeDecodeError are all ValueErrors.
        raise CanonicalError(f"not msgpack: {type(error).__name__}") from None
    _check(value, DEPTH_MAX, CanonicalError)
    if msgpack.packb(value) != data:
        raise CanonicalError("not the shortest form")
    return value


def _check(value: object, depth: int, error: type[CanonicalError | LocalProtocolError]) -> None:
    kind = type(value)
    if kind is bytes or kind is int or value is None or kind is bool:
        return
    if kind is str:
        if not value.isascii():  # type: ignore[attr-defined]
            raise error("strings are ASCII")
        return
    if kind is list or kind is tuple:
        if depth == 0:
            raise error(f"arrays nest at most {DEPTH_MAX} deep")
        if len(value) > ARRAY_LENGTH_MAX:  # type: ignore[arg-type]
            raise error(f"arrays have at most {ARRAY_LENGTH_MAX} elements")
        for element in value:  # type: ignore[attr-defined]
            _check(element, depth - 1, error)
        return
    if not isinstance(value, bytes):  # a NodeId, for one, is a byte string
        raise error(f"{kind.__name__} has no canonical form")
