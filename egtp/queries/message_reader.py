"""Reading the messages of peers that say the same kinds of things over and over (pure).

Of two queries of one kind mostly only nonce, number and body differ. What lies between number and
body has one form (see :mod:`egtp.values.canonical`), so equal bytes there mean what they meant the
last time, and need not be decoded, checked and encoded again. Of two sends of one kind, nonce,
lifetime and body differ.
"""

from __future__ import annotations

from typing import Final

from egtp.values.bodies import body_at
from egtp.values.canonical import INTEGER_16, pack
from egtp.values.message import (
    QUERY_HEAD,
    REPLY_HEAD,
    SEND_HEAD,
    Message,
    Query,
    Send,
    decode_message,
)

__all__ = ["MessageReader"]

KINDS_MAX: Final = 256
"""Kinds of queries of which the last lifetime and limit are kept, and of sends that are known."""
NIL: Final = 0xC0
_new: Final = tuple.__new__


class MessageReader:
    """Reads messages exactly as :func:`decode_message`, at half the price for most."""

    __slots__ = ("_kinds", "_terms")

    def __init__(self) -> None:
        self._terms: dict[bytes, tuple[bytes, str, int, int]] = {}
        """By the bytes of a query's kind: what followed it last time, and what all that means."""
        self._kinds: dict[bytes, str] = {}
        """The kinds of sends, by their bytes."""

    def read(self, data: bytes) -> Message:
        """Raises :class:`InvalidMessage`."""
        if len(data) > 32 and data[20] == NIL:
            head = data[:4]
            if head == QUERY_HEAD:
                message: Message | None = self._read_query(data)
            elif head == SEND_HEAD:
                message = self._read_send(data)
            else:
                message = None
            if message is not None:
                return message
        elif data[:4] == REPLY_HEAD:
            return decode_message(data)
        return self._decode(data)

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
        # Most lifetimes are some seconds, in milliseconds: numbers of 16 bits.
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
