"""Packets of several senders for one recipient, in turns that are fair by bytes (pure).

A relay passes on packets that it cannot read, for anybody who asks. In a single queue, a sender of
more than the recipient takes would keep everybody else waiting. If senders took turns by packets, a
newcomer would wait for a large one of each of them. So this is weighted fair queueing with equal
weights: the next packet is the one that would be finished first if all senders were served at the
same time, a byte each in turn. A sender of little waits for the packet that is being sent, and then
for no more bytes of each other sender than it sends itself.

(Turns by bytes, as in deficit round robin, are not enough: senders that began together have all
saved up for a large packet at the same moment, and one that has just had its turn waits for all of
them.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush, heapreplace
from typing import Final

from egtp.channel.packet import PACKET_BYTES_MAX
from egtp.queries.outgoing import PassedOn
from egtp.values.identity import NodeId

__all__ = ["RESTING_MAX", "SENDER_BYTES", "FairQueue"]

RESTING_MAX: Final = 256
"""How many senders with nothing here are remembered for having had more than their share: each of
them counts as one who shares, and an identity costs nothing."""
SENDER_BYTES: Final = 1024
"""The memory that a sender takes beside its packets; a test measures that it is no more."""


class _Sender:
    __slots__ = ("bytes", "packets", "peer_id", "until")

    def __init__(self, peer_id: NodeId | None, until: float) -> None:
        self.peer_id: Final = peer_id
        self.packets: deque[PassedOn] = deque()
        self.bytes = 0
        self.until = until
        """How many bytes each sender will have been given when this one's first packet is through;
        without packets, when its last one was."""


class FairQueue:
    """Invariants: packets of one sender come out in the order in which they went in; a sender with
    packets has exactly one place in the line; one without is remembered until the others have been
    given as much, and at most :data:`RESTING_MAX` are. However many packets wait, the next one is
    found at once; taking it out costs a heap operation over the senders that wait."""

    __slots__ = ("_count", "_given", "_line", "_resting", "_senders", "_serial")

    def __init__(self) -> None:
        self._senders: dict[NodeId | None, _Sender] = {}
        self._line: list[tuple[float, int, _Sender]] = []
        """A heap of the senders with packets, by ``until``; of equal ones, the first to come."""
        self._resting: dict[NodeId | None, _Sender] = {}
        """The senders without packets that have had more than each was given."""
        self._given = 0.0
        """How many bytes a sender that wanted them all the time has been given."""
        self._serial = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        # In compiled code, a length of 0 alone does not make it false.
        return self._count > 0

    def __iter__(self) -> Iterator[PassedOn]:
        for sender in self._senders.values():
            yield from sender.packets

    @property
    def overhead_bytes(self) -> int:
        """The memory that all this takes beside the packets."""
        return SENDER_BYTES * len(self._senders)

    def bytes_of(self, peer_id: NodeId) -> int:
        """How many bytes of one sender wait."""
        sender = self._senders.get(peer_id)
        return 0 if sender is None else sender.bytes

    def append(self, packet: PassedOn) -> None:
        size = len(packet.message)
        sender = self._senders.get(packet.sender)
        if sender is None:
            sender = self._senders[packet.sender] = _Sender(packet.sender, self._given)
        elif not sender.packets:
            del self._resting[packet.sender]
            if sender.until < self._given:
                sender.until = self._given
        if not sender.packets:
            sender.until += size
            self._serial += 1
            heappush(self._line, (sender.until, self._serial, sender))
        sender.packets.append(packet)
        sender.bytes += size
        self._count += 1

    @property
    def next(self) -> PassedOn:
        """The packet whose turn it is."""
        return self._line[0][2].packets[0]

    def popleft(self) -> PassedOn:
        """Take out the packet whose turn it is."""
        line = self._line
        _, serial, sender = line[0]
        packet = sender.packets.popleft()
        size = len(packet.message)
        sender.bytes -= size
        self._count -= 1
        if sender.packets:
            sender.until += len(sender.packets[0].message)
            heapreplace(line, (sender.until, serial, sender))
        elif self._count:
            heappop(line)
            self._resting[sender.peer_id] = sender
        else:
            line.clear()
            self._senders.clear()
            self._resting.clear()
            return packet
        self._give(size)
        return packet

    def _give(self, size: float) -> None:
        """Share out what was taken among all senders, waiting or resting."""
        if self._resting:
            size = self._forget(size)
        given = self._given + size / len(self._senders)
        # Newcomers start here: at most a packet behind the first, so as not to go first for long.
        least = self._line[0][0] - PACKET_BYTES_MAX
        self._given = max(least, given)

    def _forget(self, size: float) -> float:
        """Forget resting senders that the others have caught up with. Returns what is then left to
        share out."""
        while self._resting:
            sender = next(iter(self._resting.values()))
            needed = (sender.until - self._given) * len(self._senders)
            if needed > size and len(self._resting) <= RESTING_MAX:
                break
            if 0 < needed <= size:
                self._given = sender.until
                size -= needed
            del self._resting[sender.peer_id], self._senders[sender.peer_id]
        return size
