"""A session: two keys and two counters, made by one handshake, for one path to one peer.

On a TCP connection packets arrive in order, so each must have exactly the next counter. Over relays
they may overtake each other, so a window over the last 8,192 counters records which were seen.
Either way, a packet opens at most once.
"""

from __future__ import annotations

from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from egtp.channel.noise import nonce_of
from egtp.channel.packet import DATA_HEADER, DATA_START, Data
from egtp.errors import InvalidPacket

__all__ = ["COUNTER_LIMIT", "InOrder", "ReplayWindow", "Session", "SlidingWindow"]

COUNTER_LIMIT: Final = 2**40
"""After this many packets a session must be replaced; AES-GCM's own limit is far higher."""


class ReplayWindow(Protocol):
    """Decides which counters may still be opened: ``fits`` asks, ``take`` uses one up."""

    def fits(self, counter: int) -> bool: ...

    def take(self, counter: int) -> None: ...


class InOrder:
    """The window of a TCP connection: exactly the next counter, and no other."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def fits(self, counter: int) -> bool:
        return counter == self._next

    def take(self, counter: int) -> None:
        self._next = counter + 1


class SlidingWindow:
    """Every counter once, and none that is ``size`` or more below the highest one taken.

    Invariant: bit ``i`` of ``_seen`` is set if and only if counter ``_highest - i`` was taken.
    """

    SIZE: Final = 8192
    __slots__ = ("_highest", "_mask", "_seen", "_size")

    def __init__(self, size: int = SIZE) -> None:
        self._size = size
        self._mask = (1 << size) - 1
        self._highest = -1
        self._seen = 0

    def fits(self, counter: int) -> bool:
        age = self._highest - counter
        return age < 0 or (age < self._size and not self._seen >> age & 1)

    def take(self, counter: int) -> None:
        age = self._highest - counter
        if age < 0:
            # A counter far ahead shifts everything out; never build a number that large first.
            self._seen = ((self._seen << -age) & self._mask if -age < self._size else 0) | 1
            self._highest = counter
        else:
            self._seen |= 1 << age


class Session:
    """Seals and opens the data packets of one path. Pure; the owner knows who the peer is."""

    __slots__ = ("_open", "_seal", "_sent", "_window", "index", "remote_index", "started_s")

    def __init__(
        self,
        *,
        index: int,
        remote_index: int,
        send_key: bytes,
        receive_key: bytes,
        window: ReplayWindow,
        started_s: float,
    ) -> None:
        self.index: Final = index
        """Names this session in the other side's packets."""
        self.remote_index: Final = remote_index
        self.started_s: Final = started_s
        """When it began, on this node's elapsed clock: where ``t`` is 0 in what it seals."""
        self._seal = AESGCM(send_key)
        self._open = AESGCM(receive_key)
        self._window = window
        self._sent = 0

    @property
    def sent(self) -> int:
        """How many packets have been sealed."""
        return self._sent

    def seal(self, plaintext: bytes) -> bytes:
        """A complete data packet. No two packets of a session have the same counter."""
        counter = self._sent
        self._sent = counter + 1
        header = DATA_HEADER.pack(DATA_START, self.remote_index, counter)
        return header + self._seal.encrypt(nonce_of(counter), plaintext, header)

    def open(self, packet: Data) -> bytes:
        """The plaintext, once. Raises :class:`InvalidPacket` and changes nothing if the packet was
        seen before, is too old, is out of order on TCP, or does not authenticate."""
        if not self._window.fits(packet.counter):
            raise InvalidPacket("a packet out of order, or seen before")
        try:
            plaintext = self._open.decrypt(
                nonce_of(packet.counter), packet.ciphertext, packet.header
            )
        except InvalidTag:
            raise InvalidPacket("a packet that does not authenticate") from None
        self._window.take(packet.counter)
        return plaintext
