"""What a TCPConnection costs: a sent packet, a received packet, an idle connection.

``python benchmarks/connection_costs.py``

No socket is involved: the transport takes everything and does nothing, so these are the costs of
the connection alone. Nanoseconds depend on the machine and the minute: compare rows of one run.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

from egtp.channel.frames import frame
from egtp.tcp.connection import TCPConnection

ROUNDS: Final = 7
SIZES: Final = (150, 4200, 65_000)
PIECE_BYTES: Final = 1448
"""The payload of a TCP segment, as usual on the Internet."""


class NoSocket:
    """A transport that takes everything."""

    def get_extra_info(self, _: str) -> tuple[str, int]:
        return ("192.0.2.1", 4000)

    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False


class Owner:
    def opened(self, connection: TCPConnection) -> None: ...

    def received(self, connection: TCPConnection, packet: bytes) -> None: ...

    def read(self, connection: TCPConnection) -> None:
        pass

    def writable(self, connection: TCPConnection) -> None: ...

    def garbage(self, reason: str) -> None: ...

    def closing(self, connection: TCPConnection) -> None: ...

    def closed(self, connection: TCPConnection, reason: str) -> None: ...


def open_connection(owner: Owner, number: int = 1) -> TCPConnection:
    transport: Any = NoSocket()
    connection = TCPConnection(number, owner, dialled=None, held_bytes_max=1 << 20, started_s=0.0)
    connection.connection_made(transport)
    connection.lift_limit()
    return connection


def ns_per(count: int, work: Callable[[], None]) -> float:
    """Nanoseconds for each of the ``count`` things that ``work`` does, in the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best / count * 1e9


def sending(packet: bytes, written: Callable[[], None] | None) -> float:
    send = open_connection(Owner()).send
    count = 20_000 if len(packet) < 10_000 else 2_000

    def work() -> None:
        for _ in range(count):
            send(packet, written)

    return ns_per(count, work)


def receiving(pieces: list[bytes], packets: int) -> float:
    receive = open_connection(Owner()).data_received
    turns = max(1, 20_000 // packets // len(pieces))

    def work() -> None:
        for _ in range(turns):
            for piece in pieces:
                receive(piece)

    return ns_per(turns * packets, work)


def cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def idle_bytes(count: int = 2000) -> float:
    """Memory of a connection that has carried packets, without its transport."""
    owner, packet = Owner(), frame(bytes(150))
    open_connection(owner).data_received(packet)
    tracemalloc.start()
    connections = [open_connection(owner, 1000 + number) for number in range(count)]
    for connection in connections:
        connection.data_received(packet)
        connection.send(packet)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (used - sys.getsizeof(connections)) / count


def main() -> None:
    def nothing() -> None: ...

    for size in SIZES:
        packet = os.urandom(size)
        framed = frame(packet)
        many = max(1, 65_536 // len(framed))
        print(f"{size} bytes, ns per packet")
        print(f"  sent                         {sending(packet, None):8.0f}")
        print(f"  sent, told when written      {sending(packet, nothing):8.0f}")
        print(f"  received, one per read       {receiving([framed], 1):8.0f}")
        print(f"  received, {many:3} per read       {receiving([framed * many], many):8.0f}")
        pieces = cut(framed * many, PIECE_BYTES)
        print(f"  received, in {PIECE_BYTES}-byte reads {receiving(pieces, many):8.0f}")
    print(f"an idle connection, without its transport: {idle_bytes():.0f} bytes")


if __name__ == "__main__":
    main()
