"""Reads messages faster by remembering kinds, since peers use the same ones over and over (pure).

Two queries of one kind mostly differ in nonce, number and body only. What lies between number and
body has just one encoding (see :mod:`egtp.values.canonical`), so equal bytes there mean the same as
last time, and need not be decoded, checked and encoded again. Two sends of one kind differ in
nonce, lifetime and body.
"""

from __future__ import annotations

from typing import Final

from egtp.values.bodies import body_at
from egtp.values.canonical import INTEGER_16, pack
from egtp.values.message import (
    QUERY_HEAD,
    SEND_HEAD,
    Message,
    Query,
    Send,
    decode_message,
)

__all__ = ["MessageReader"]

KINDS_MAX: Final = 256
"""Kinds of queries whose last lifetime and limit are remembered, and as many kinds of sends."""
NIL: Final = 0xC0
_new: Final = tuple.__new__


class MessageReader:
    """Reads messages exactly as :func:`decode_message` does, most of them at half the cost."""

    __slots__ = ("_kinds", "_terms")

    def __init__(self) -> None:
        self._terms: dict[bytes, tuple[bytes, str, int, int]] = {}
        """By the encoded kind of a query: the bytes that followed last time, and the kind, lifetime
        and limit that all these stand for."""
        self._kinds: dict[bytes, str] = {}
        """The kinds of sends, by their encoding."""

    def read(self, data: bytes) -> Message:
        """Raises :class:`InvalidMessage`."""
        if len(data) <= 32:
            return self._decode(data)
        if data[20] != NIL:
            return decode_message(data)  # a reply, if anything
        head = data[:4]
        if head == QUERY_HEAD:
            message: Message | None = self._read_query(data)
        else:
            message = self._read_send(data) if head == SEND_HEAD else None
        return self._decode(data) if message is None else message

    def _read_query(self, data: bytes) -> Query | None:
        form = data[21]
        if form < 0x80:
            number, at = form, 22
        elif form == INTEGER_16:
            number, at = data[22] << 8 | data[23], 24
        elif form == 0xCE:
            number, at = int.from_bytes(data[22:26], "big"), 26
        else:
            return None
        end = at + 1 + (data[at] & 0x1F)
        known = self._terms.get(data[at:end])
        if known is not None:
            terms, kind, lifetime_ms, reply_bytes_max = known
            body_head = end + len(terms)
            if (
                data[end:body_head] == terms
                and body_head + 1 < len(data)
                and (form < 0x80 or number >> (8 if form == INTEGER_16 else 16))
                and (body := body_at(data, body_head)) is not None
            ):
                fields = data[4:20], number, kind, lifetime_ms, reply_bytes_max, body
                return _new(Query, fields)
        return None

    def _read_send(self, data: bytes) -> Send | None:
        at = 22 + (data[21] & 0x1F)
        kind = self._kinds.get(data[21:at])
        # Most lifetimes are a few seconds, in milliseconds: 16-bit numbers.
        if kind is not None and at + 4 < len(data) and data[at] == INTEGER_16 and data[at + 1]:
            body = body_at(data, at + 3)
            if body is not None:
                lifetime_ms = data[at + 1] << 8 | data[at + 2]
                return _new(Send, (data[4:20], kind, lifetime_ms, body))
        return None

    def _decode(self, data: bytes) -> Message:
        message = decode_message(data)
        if type(message) is Query:
            if len(self._terms) >= KINDS_MAX:
                self._terms.clear()
            terms = pack(message.lifetime_ms) + pack(message.reply_bytes_max)
            self._terms[pack(message.kind)] = (
                terms,
                message.kind,
                message.lifetime_ms,
                message.reply_bytes_max,
            )
        elif type(message) is Send:
            if len(self._kinds) >= KINDS_MAX:
                self._kinds.clear()
            self._kinds[pack(message.kind)] = message.kind
        return message
