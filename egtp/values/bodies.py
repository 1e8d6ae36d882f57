"""Finds the body of a message: its last element, a byte string in its shortest form.

Every message passes through here, so this uses no decoder (see :mod:`egtp.values.canonical`).
"""

from __future__ import annotations

from typing import Final

__all__ = ["BYTES_16", "BYTES_32", "BYTES_8", "body_at"]

BYTES_8: Final = 0xC4
"""The first byte of a byte string with an 8-bit length."""
BYTES_16: Final = 0xC5
BYTES_32: Final = 0xC6


def body_at(data: bytes, at: int) -> bytes | None:
    """The byte string that starts at ``at`` and ends with ``data``; None if there is none in its
    shortest form. ``data`` must have at least ``at + 2`` bytes."""
    form = data[at]
    if form == BYTES_8:
        if len(data) - at - 2 == data[at + 1]:
            return data[at + 2 :]
    elif form == BYTES_16:
        if 256 <= len(data) - at - 3 == int.from_bytes(data[at + 1 : at + 3], "big"):
            return data[at + 3 :]
    elif form == BYTES_32 and 65_536 <= len(data) - at - 5 == int.from_bytes(
        data[at + 1 : at + 5], "big"
    ):
        return data[at + 5 :]
    return None
