"""What several senders have for one recipient, shared out by bytes (pure).

A relay passes on what it cannot read, for whoever asks it. In one queue for all, whoever sends more
than the recipient takes would have everybody else wait behind it. If senders took turns by packets,
whoever comes would wait for a large one of each of them. So this is weighted fair queueing, all
weights alike: that packet goes first which would be through first if all senders were served at the
same time, a byte each in turn. Who sends little waits for the packet that is under way, and then
for no more bytes of each of the others than it sends itself.

(Turns by bytes, as of deficit round robin, are not enough: many who began together have saved up
for a large packet at the same moment, and whoever has had his turn waits for all of them.)
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
"""Of how many who have nothing here now it is remembered that they had more than their share: each
of them counts as one who shares, and an identity costs nothing."""
SENDER_BYTES: Final = 1024
"""What a sender takes here beside its packets; a test measures that it is no more."""


class _Sender:
    __slots__ = ("bytes", "packets", "peer_id", "until")

    def __init__(self, peer_id: NodeId | None, until: float) -> None:
        self.peer_id: Final = peer_id
        self.packets: deque[PassedOn] = deque()
        self.bytes = 0
        self.until = until
        """Its first packet is through when each sender was given so many bytes; if it has none,
        its last one."""


class FairQueue:
    """Invariants: packets of one sender come out in the order in which they went in; whoever has
    one here has one place in the line; who has none is remembered until the others were given as
    much, and no more than :data:`RESTING_MAX` are. What is taken out is found at once, however many
    packets wait, and takes the longer the more senders do, as a heap does."""

    __slots__ = ("_count", "_given", "_line", "_resting", "_senders", "_serial")

    def __init__(self) -> None:
        self._senders: dict[NodeId | None, _Sender] = {}
        self._line: list[tuple[float, int, _Sender]] = []
        """A heap of those who have packets here, by ``until``; of equal ones the first to come."""
        self._resting: dict[NodeId | None, _Sender] = {}
        """Those who have none, and had more than what each was given."""
        self._given = 0.0
        """How many bytes each sender was given who has wanted them all the time."""
        self._serial = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        # Compiled, a length alone does not make it empty.
        return self._count > 0

    def __iter__(self) -> Iterator[PassedOn]:
        for sender in self._senders.values():
            yield from sender.packets

    @property
    def overhead_bytes(self) -> int:
        """What all this takes beside the packets."""
        return SENDER_BYTES * len(self._senders)

    def bytes_of(self, peer_id: NodeId) -> int:
        """What waits of one sender."""
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
        """Take it out."""
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
        """Share out what was taken among those who wait, or rest and had it before."""
        if self._resting:
            size = self._forget(size)
        given = self._given + size / len(self._senders)
        # Whoever comes is not so far behind those who wait that he goes first for long.
        least = self._line[0][0] - PACKET_BYTES_MAX
        self._given = max(least, given)

    def _forget(self, size: float) -> float:
        """Forget those whom the others have caught up with, and return what is left to share out
        then."""
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
