"""What several senders have for one recipient, in turns (pure).

A relay passes on what it cannot read, for whoever asks it. In one queue for all, whoever sends more
than the recipient takes would have everybody else wait behind it. So each sender has a queue, and
the queues take turns, a packet each: who sends little waits for one packet of each of the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from egtp.queries.outgoing import PassedOn
from egtp.values.identity import NodeId

__all__ = ["FairQueue"]


class _Sender:
    __slots__ = ("bytes", "packets", "peer_id")

    def __init__(self, peer_id: NodeId | None) -> None:
        self.peer_id: Final = peer_id
        self.packets: deque[PassedOn] = deque()
        self.bytes = 0


class FairQueue:
    """Invariants: packets of one sender come out in the order in which they went in; whoever has
    one here has a turn, once; who has none takes no memory. Everything is done at once, however
    many wait."""

    __slots__ = ("_count", "_senders", "_turns")

    def __init__(self) -> None:
        self._senders: dict[NodeId | None, _Sender] = {}
        self._turns: deque[_Sender] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        # Compiled, a length alone does not make it empty.
        return self._count > 0

    def __iter__(self) -> Iterator[PassedOn]:
        for sender in self._turns:
            yield from sender.packets

    def bytes_of(self, peer_id: NodeId) -> int:
        """What waits of one sender."""
        sender = self._senders.get(peer_id)
        return 0 if sender is None else sender.bytes

    def append(self, packet: PassedOn) -> None:
        self._count += 1
        sender = self._senders.get(packet.sender)
        if sender is None:
            sender = self._senders[packet.sender] = _Sender(packet.sender)
            self._turns.append(sender)
        sender.packets.append(packet)
        sender.bytes += len(packet.message)

    @property
    def next(self) -> PassedOn:
        """The packet whose turn it is."""
        return self._turns[0].packets[0]

    def popleft(self) -> PassedOn:
        """Take it out."""
        self._count -= 1
        sender = self._turns.popleft()
        packet = sender.packets.popleft()
        sender.bytes -= len(packet.message)
        if sender.packets:
            self._turns.append(sender)
        else:
            del self._senders[sender.peer_id]
        return packet
