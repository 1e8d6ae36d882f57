"""EGTP without one of its promises, only to see what each of them costs.

The product has no such switches. Here the code that keeps a promise is replaced from outside, for a
whole process; whatever then talks to it must lack the same promise. The bytes of a promise still
travel, so what is measured is its work alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Final, NamedTuple

from egtp.channel import session
from egtp.engine import engine, intake
from egtp.limits import deadlines
from egtp.queries import answers, exchange

__all__ = ["ALL", "PROMISES", "take_away"]

REFERENCE_BYTES: Final = 32
TAG_BYTES: Final = 16
LOOK_AGAIN_S: Final = 1.5


class _Replacement(NamedTuple):
    owner: Any
    name: str
    value: object


class _Unhashed:
    """Stands in for a hash: the first bytes of a query, which no two queries share, since their
    number is among them. So a reply is still matched to its query, as in other systems."""

    __slots__ = ("_message",)

    def __init__(self, message: bytes) -> None:
        self._message = message

    def digest(self) -> bytes:
        return self._message[:REFERENCE_BYTES].ljust(REFERENCE_BYTES, b"\0")


class _Clear:
    """Stands in for AES-GCM: as many bytes, readable by everybody."""

    __slots__ = ()

    def __init__(self, _: bytes) -> None: ...

    def encrypt(self, _: bytes, plaintext: bytes, __: bytes) -> bytes:
        return plaintext + bytes(TAG_BYTES)

    def decrypt(self, _: bytes, ciphertext: bytes, __: bytes) -> bytes:
        return ciphertext[:-TAG_BYTES]


def _nonce() -> list[_Replacement]:
    """All messages have the same nonce."""
    return [_Replacement(engine, "nonces", lambda _: repeat(bytes(16)))]


def _reference() -> list[_Replacement]:
    """A reply does not prove that its sender has read the query."""
    return [_Replacement(module, "sha256", _Unhashed) for module in (exchange, intake)]


def _encryption() -> list[_Replacement]:
    """Once the handshake is over, everything is sent in the clear."""
    return [_Replacement(session, "AESGCM", _Clear)]


def _at_most_once() -> list[_Replacement]:
    """The answerer runs every copy and remembers none; the asker does not say what is settled."""
    run = answers.Verdict.RUN, None
    return [
        _Replacement(answers.Answers, "ask", lambda *_: run),
        _Replacement(exchange.ExchangeTable, "settled", lambda *_: 0),
        _Replacement(exchange.ExchangeTable, "settled_except", lambda *_: None),
    ]


def _deadlines() -> list[_Replacement]:
    """Nothing is ever entered into the table of deadlines, and nothing is ever due."""
    bucket: dict[object, None] = {}
    looked_s = 0.0

    def due(_: object, now_s: float) -> list[object]:
        nonlocal looked_s
        looked_s = now_s
        return []

    return [
        _Replacement(deadlines.Deadlines, "add", lambda *_: bucket),
        _Replacement(deadlines.Deadlines, "due", due),
        # With a timer always set, nobody has to find out whether one is.
        _Replacement(deadlines.Deadlines, "next_s", lambda _: looked_s + LOOK_AGAIN_S),
    ]


PROMISES: Final[dict[str, Callable[[], list[_Replacement]]]] = {
    "nonce": _nonce,
    "reference": _reference,
    "encryption": _encryption,
    "at most once": _at_most_once,
    "deadlines": _deadlines,
}
ALL: Final = "any of these"


@contextlib.contextmanager
def take_away(promise: str) -> Iterator[None]:
    """Take away a promise, or :data:`ALL`, until the context ends.

    Nodes that were started before keep some of theirs. Raises ``AttributeError`` if something that
    is to be replaced no longer exists.
    """
    names = PROMISES if promise == ALL else [promise]
    with contextlib.ExitStack() as stack:
        for name in names:
            for owner, attribute, value in PROMISES[name]():
                stack.callback(setattr, owner, attribute, getattr(owner, attribute))
                setattr(owner, attribute, value)
        yield
