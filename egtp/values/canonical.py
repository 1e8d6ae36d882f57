"""Canonical form: the one and only encoding of a value (R2).

It is a subset of msgpack: nil, bool, 64-bit integers, byte strings, ASCII strings, and arrays of
these nested up to four deep, each in its shortest form. Equal values therefore have equal bytes,
whatever encoded them, and a hash of the bytes is a hash of the value. Maps, floats, extension types
and longer forms than necessary are not allowed.

The decoder checks types, and encodes the value again to compare the bytes. The comparison alone
would let unsorted maps, NaN, extension types and deep nesting through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgpack

from egtp.errors import CanonicalError, LocalProtocolError

__all__ = [
    "ARRAY_LENGTH_MAX",
    "DEPTH_MAX",
    "Value",
    "decode",
    "decode_with_body",
    "encode",
    "pack",
]

Value: TypeAlias = "bool | int | bytes | str | tuple[Value, ...] | list[Value] | None"

DEPTH_MAX: Final = 4
"""How deep arrays may nest, counting the outermost one."""

ARRAY_LENGTH_MAX: Final = 64
"""How many elements an array may have. The decoder allocates what a length promises before it has
seen the elements; with this limit, a promise costs at most half a kilobyte."""

ARRAYS_MAX: Final = 256
"""How many arrays a value may have in all, counting the outermost one."""

pack: Final[Callable[[object], bytes]] = msgpack.Packer().pack
"""The canonical bytes of a value that the caller made of allowed types itself: fast, since
unchecked. (One packer serves all callers: it keeps nothing between calls.)"""

FLAT_BYTES_MAX: Final = 65_536
"""Up to this size, a flat array needs no guard against nested arrays: they cannot cost much."""
_FLAT: Final = {"max_array_len": 8, "max_map_len": 0, "max_ext_len": 0}
INTEGER_16: Final = 0xCD
"""The first byte of an integer from 256 to 65,535."""


def encode(value: Value) -> bytes:
    """The canonical bytes of ``value``.

    Raises :class:`LocalProtocolError` for a value that has no canonical form.
    """
    if _check(value, DEPTH_MAX, LocalProtocolError) > ARRAYS_MAX:
        raise LocalProtocolError(f"a value has at most {ARRAYS_MAX} arrays")
    try:
        return pack(value)
    except (OverflowError, ValueError) as error:
        raise LocalProtocolError(f"no canonical form: {error}") from None


class _ListLimit:
    """Stops the decoder at the first list above the limit: in memory, a list is sixty times as
    large as the one byte that asks for it."""

    __slots__ = ("_left",)

    def __init__(self, lists_max: int) -> None:
        self._left = lists_max

    def __call__(self, value: list[Value]) -> list[Value]:
        if not self._left:
            raise CanonicalError("too many arrays")
        self._left -= 1
        return value


def decode_with_body(data: bytes) -> list[Any]:
    """:func:`decode` for an array whose last element, the body, is a byte string of any size. The
    caller must check the types of all other elements.

    Refuses nested arrays and longer forms than necessary, but lets through other types that have no
    canonical form. The body is neither encoded again nor compared: its length determines the
    shortest form of its head, and the other forms differ from that in length.
    """
    try:
        if len(data) > FLAT_BYTES_MAX:
            fields = msgpack.unpackb(data, list_hook=_ListLimit(1), **_FLAT)
        else:
            fields = msgpack.unpackb(data, max_array_len=8, max_map_len=0, max_ext_len=0)
        if type(fields) is not list or not fields or type(body := fields[-1]) is not bytes:
            raise CanonicalError("not an array that ends with a body")
        fields[-1] = b""
        before_body = pack(fields)[:-2]
    except (ValueError, OverflowError, RecursionError) as error:
        raise CanonicalError(f"not msgpack: {type(error).__name__}") from None
    fields[-1] = body
    size = len(body)
    head_bytes = 2 if size < 256 else 3 if size < 65_536 else 5
    if len(data) != len(before_body) + head_bytes + size or not data.startswith(before_body):
        raise CanonicalError("not the shortest form")
    return fields


def decode(data: bytes) -> Value:
    """The value whose canonical bytes are ``data``; arrays become lists.

    Raises :class:`CanonicalError` for any other bytes. Takes time and memory linear in
    ``len(data)``, whatever lengths the bytes promise.
    """
    try:
        value: Value = msgpack.unpackb(
            data,
            list_hook=_ListLimit(ARRAYS_MAX),
            max_array_len=ARRAY_LENGTH_MAX,
            max_map_len=0,
            max_ext_len=0,
        )
        shortest = pack(value) == data
    except (ValueError, OverflowError, RecursionError) as error:
        # msgpack's own errors and UnicodeDecodeError are all ValueErrors.
        raise CanonicalError(f"not msgpack: {type(error).__name__}") from None
    if not shortest:
        raise CanonicalError("not the shortest form")
    _check(value, DEPTH_MAX, CanonicalError)
    return value


def _check(value: object, depth: int, error: type[CanonicalError | LocalProtocolError]) -> int:
    """Check types and depth; return how many arrays there are."""
    kind = type(value)
    if kind is bytes or kind is int or value is None or kind is bool:
        return 0
    if kind is str:
        if not value.isascii():  # type: ignore[attr-defined]
            raise error("strings are ASCII")
        return 0
    if kind is list or kind is tuple:
        if depth == 0:
            raise error(f"arrays nest at most {DEPTH_MAX} deep")
        if len(value) > ARRAY_LENGTH_MAX:  # type: ignore[arg-type]
            raise error(f"arrays have at most {ARRAY_LENGTH_MAX} elements")
        arrays = 1
        for element in value:  # type: ignore[attr-defined]
            # Most elements are one of these; a call for each would be most of the work.
            if (leaf := type(element)) is not bytes and leaf is not int and element is not None:
                arrays += _check(element, depth - 1, error)
        return arrays
    # A NodeId is a byte string, a ReplyCode an integer.
    if not isinstance(value, bytes | int):
        raise error(f"{kind.__name__} has no canonical form")
    return 0
