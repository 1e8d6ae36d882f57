"""CrookedRelay: a relay of Mallory's. A real node, whose relay server does what she likes."""

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
    """What becomes of packets that a relay is asked to pass on. All are recorded."""

    HONEST = "honest"
    HOLD = "hold"
    """Nothing, until Mallory gives them away."""
    DROP = "drop"
    TWICE = "twice"
    BACKWARD = "backward"
    """Each in front of the one before it."""
    LIE = "lie"
    """Passed on, and their sender is told that they could not be."""


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
    """Takes the place of the relay server of a node that was started with one."""

    def __init__(self, host: RelayHost, limits: RelayLimits) -> None:
        super().__init__(host, limits)
        self.manner = Manner.HONEST
        self.recorded: Final[deque[Passed]] = deque(maxlen=RECORDED_MAX)
        self.held: Final[deque[Passed]] = deque(maxlen=RECORDED_MAX)
        self._kept_back: Passed | None = None
        self._lies = 0

    @classmethod
    def take_over(cls, node: Node, limits: RelayLimits | None = None) -> CrookedRelay:
        """Let the relay of a running node be crooked from now on."""
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

    # What Mallory does with it

    def give(self, passed: Passed, recipient: NodeId | None = None) -> None:
        """Push a packet to its recipient, or to another one, if he is connected here."""
        body = Delivery(passed.sender, passed.packet).encode()
        self._host.push(recipient or passed.recipient, DELIVERY_KIND, body, LIFETIME_MS)

    def hint(self, passed: Passed, code: int) -> None:
        """Tell the sender that a packet could not be passed on, true or not."""
        body = Hint(digest_of(passed.packet), code).encode()
        self._host.push(passed.sender, HINT_KIND, body, LIFETIME_MS)

    def deny(self, passed: Passed, *, quoting: bool = True) -> None:
        """Tell the sender of a data packet, in the name of the one whom it was for, "I do not know
        this session"; quoting the packet, as only who saw it can, or not."""
        index = int.from_bytes(passed.packet[4:12], "big")
        note = UnknownSession(index, passed.packet[-16:] if quoting else bytes(16)).encode()
        self.give(Passed(self._host.now(), passed.recipient, passed.sender, note))

    def release(self, count: int | None = None, *, newest_first: bool = False) -> None:
        """Give the held packets away: all, or so many."""
        for _ in range(len(self.held) if count is None else min(count, len(self.held))):
            self.give(self.held.pop() if newest_first else self.held.popleft())
