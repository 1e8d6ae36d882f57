"""CrookedRelay: a relay of Mallory's, a real node whose relay server does what she likes."""

from __future__ import annotations

import enum
from collections import deque
from typing import Final, NamedTuple

from egtp import Node, NodeId
from egtp.channel.packet import DATA, INITIATION, UnknownSession
from egtp.errors import InvalidMessage
from egtp.relay.leases import RelayLimits
from egtp.relay.server import RelayHost, RelayServer
from egtp.relay.wire import (
    DELIVERY_KIND,
    HINT_KIND,
    NO_LEASE,
    TOO_MUCH,
    Delivery,
    Hint,
    Relay,
    digest_of,
)

__all__ = ["CrookedRelay", "Manner", "Passed"]

RECORDED_MAX: Final = 20_000
LIFETIME_MS: Final = 30_000


class Manner(enum.Enum):
    """What a relay does with packets that it is asked to pass on. All are recorded."""

    HONEST = "honest"
    HOLD = "hold"
    """Keep them until Mallory releases them."""
    DROP = "drop"
    TWICE = "twice"
    BACKWARD = "backward"
    """Pass them on in swapped pairs."""
    LIE = "lie"
    """Pass them on, and tell their sender that it was impossible."""


class Passed(NamedTuple):
    """A packet that a relay was asked to pass on."""

    at_s: float
    sender: NodeId
    recipient: NodeId
    packet: bytes

    @property
    def is_initiation(self) -> bool:
        return self.packet[:1] == bytes((INITIATION,))

    @property
    def is_data(self) -> bool:
        return self.packet[:1] == bytes((DATA,))


class CrookedRelay(RelayServer):
    """Replaces the relay server of a running node."""

    def __init__(self, host: RelayHost, limits: RelayLimits) -> None:
        super().__init__(host, limits)
        self.manner = Manner.HONEST
        self.recorded: Final[deque[Passed]] = deque(maxlen=RECORDED_MAX)
        self.held: Final[deque[Passed]] = deque(maxlen=RECORDED_MAX)
        self._kept_back: Passed | None = None
        self._lies = 0

    @classmethod
    def take_over(cls, node: Node, limits: RelayLimits | None = None) -> CrookedRelay:
        """Make the relay server of a running node crooked from now on."""
        engine = node._engine
        assert engine is not None
        server = cls(engine.relaying, limits or RelayLimits())
        engine.relaying.server = server
        return server

    def relay(self, sender: NodeId, body: bytes, age_ms: int) -> None:
        try:
            recipient, _, packet = Relay.decode(body)
        except InvalidMessage:
            super().relay(sender, body, age_ms)
            return
        passed = Passed(self._host.now(), sender, recipient, packet)
        self.recorded.append(passed)
        match self.manner:
            case Manner.HONEST:
                super().relay(sender, body, age_ms)
            case Manner.HOLD:
                self.held.append(passed)
            case Manner.DROP:
                pass
            case Manner.TWICE:
                self.give(passed)
                self.give(passed)
            case Manner.BACKWARD:
                self._pass_backward(passed)
            case Manner.LIE:
                self.give(passed)
                self._lies += 1
                self.hint(passed, (NO_LEASE, TOO_MUCH)[self._lies % 2])

    def _pass_backward(self, passed: Passed) -> None:
        before, self._kept_back = self._kept_back, None
        if before is None:
            self._kept_back = passed
        else:
            self.give(passed)
            self.give(before)

    # Mallory's actions

    def give(self, passed: Passed, recipient: NodeId | None = None) -> None:
        """Push a packet to its recipient, or to another one, if that one is connected here."""
        body = Delivery(passed.sender, passed.packet).encode()
        self._host.push(recipient or passed.recipient, DELIVERY_KIND, body, LIFETIME_MS)

    def hint(self, passed: Passed, code: int) -> None:
        """Tell the sender, truly or not, that a packet could not be passed on."""
        body = Hint(digest_of(passed.packet), code).encode()
        self._host.push(passed.sender, HINT_KIND, body, LIFETIME_MS)

    def deny(self, passed: Passed, *, quoting: bool = True) -> None:
        """Tell the sender of a data packet "I do not know this session" in the name of its
        recipient, with or without the quote that proves having seen the packet."""
        index = int.from_bytes(passed.packet[4:12], "big")
        note = UnknownSession(index, passed.packet[-16:] if quoting else bytes(16)).encode()
        self.give(Passed(self._host.now(), passed.recipient, passed.sender, note))

    def release(self, count: int | None = None, *, newest_first: bool = False) -> None:
        """Pass on ``count`` held packets; all of them if None."""
        for _ in range(len(self.held) if count is None else min(count, len(self.held))):
            self.give(self.held.pop() if newest_first else self.held.popleft())
