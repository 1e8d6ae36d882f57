"""Amplification: how much a node sends to an address that it does not know, for what it is sent.

Measured from outside: a bare UDP socket sends what a forger of source addresses would, answers
nothing, and counts every byte that comes back, the pings that probe it included.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack
import umsgpack
from kademlia.network import Server

from benchmarks.dht.records import Owner
from benchmarks.dht.tables import Table
from benchmarks.dht.unmodified import quiet
from lookup_dht import DHTLookup
from lookup_dht.wire.datagram import HEADER_BYTES, MESSAGE_ID_BYTES, Method, Query, encode_query

__all__ = ["amplification"]

HOST = "127.0.0.1"
SEEDS = 4
WAIT_S = 1.6
"""Longer than a query is repeated."""
FLOOD = 3000
"""Queries from one address in one burst: many times what one source is allowed."""


class Stranger(asyncio.DatagramProtocol):
    """Counts, and answers nothing."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        del addr
        self.bytes_in += len(data)


@dataclass(frozen=True, slots=True)
class Attack:
    """A datagram, sent from a new address each time."""

    name: str
    data: bytes


def amplification(options: argparse.Namespace) -> Iterator[Table]:
    """Bytes that a node sends to an unproven address, for each byte from there."""
    quiet()
    yield Table(
        f"Amplification: one of {options.nodes:,} nodes on loopback, asked by strangers "
        "that never answer",
        asyncio.run(_measure(options.nodes, options.times)),
        (
            f"the worst of {options.times}, each from another port, which counts as another host",
            f"flood: {FLOOD:,} of them from one port as fast as they can be sent",
            "the strangers say that they are servers, so that they are probed as well",
        ),
    )


async def _measure(nodes: int, times: int) -> list[dict[str, Any]]:
    rows = []
    ours: list[DHTLookup] = []
    for _ in range(nodes):
        seeds = [node.address for node in ours[:SEEDS]]
        ours.append(DHTLookup(f"{HOST}:0", seeds, private_addresses=True))
        await ours[-1].start()
    owner = Owner(random.Random(1))  # noqa: S311
    await ours[1].publish(owner.record(1, time.time()))
    rows += await _under_attack("ours", ours[0].address.port, _attacks(owner), times)
    for node in ours:
        await node.close()
    theirs: list[Server] = []
    for _ in range(nodes):
        theirs.append(Server())
        await theirs[-1].listen(0, HOST)
        await theirs[-1].bootstrap(
            [node.transport.get_extra_info("sockname") for node in theirs[:SEEDS]]
        )
    await theirs[1].set_digest(bytes(owner.peer_id), owner.record(1, time.time()).encode())
    port = theirs[0].transport.get_extra_info("sockname")[1]
    rows += await _under_attack("kademlia", port, _attacks_on_theirs(owner), times)
    for node in theirs:
        node.stop()
    return rows


async def _under_attack(
    system: str, port: int, attacks: list[Attack], times: int
) -> list[dict[str, Any]]:
    once = {it.name: [await _send(it, port, 1) for _ in range(times)] for it in attacks}
    await asyncio.sleep(WAIT_S)
    floods = {it.name: await _send(it, port, FLOOD) for it in attacks}
    await asyncio.sleep(WAIT_S)
    rows = []
    for attack in attacks:
        sent, back = len(attack.data), max(it.bytes_in for it in once[attack.name])
        rows.append(
            {
                "system": system,
                "query": attack.name,
                "bytes sent": sent,
                "bytes back": back,
                "ratio": back / sent,
                "ratio in a flood": floods[attack.name].bytes_in / sent / FLOOD,
            }
        )
    for stranger in (*itertools.chain.from_iterable(once.values()), *floods.values()):
        stranger.transport.close()
    return rows


async def _send(attack: Attack, port: int, count: int) -> Stranger:
    loop = asyncio.get_running_loop()
    transport, stranger = await loop.create_datagram_endpoint(Stranger, local_addr=(HOST, 0))
    for _ in range(count):
        # A flood goes in with other ids, or it would be one query sent often.
        message_id = os.urandom(MESSAGE_ID_BYTES)
        data = attack.data[:1] + message_id + attack.data[HEADER_BYTES:]
        transport.sendto(data, (HOST, port))
        await asyncio.sleep(0)  # The node reads one datagram a turn; none is to be lost before it.
    return stranger


def _attacks(owner: Owner) -> list[Attack]:
    key = bytes(owner.peer_id)
    record = owner.record(2, time.time()).encode()

    def query(method: Method, **fields: Any) -> bytes:
        return encode_query(bytes(20), Query(method, "main", os.urandom(20), True, **fields))

    ping = query(Method.PING)
    find_node = query(Method.FIND_NODE, key=key)
    find_value = query(Method.FIND_VALUE, key=key)
    return [
        Attack("ping", ping),
        Attack("ping, unpadded", _unpadded(ping)),
        Attack("find_node", find_node),
        Attack("find_node, unpadded", _unpadded(find_node)),
        Attack("find_value, record held", find_value),
        Attack("find_value, unpadded", _unpadded(find_value)),
        Attack("find_value, no record", query(Method.FIND_VALUE, key=os.urandom(20))),
        Attack("store, no token", query(Method.STORE, key=key, record=record)),
        Attack("store, garbage", query(Method.STORE, key=key, record=b"x")),
        Attack("no msgpack", bytes(80)),
    ]


def _unpadded(data: bytes) -> bytes:
    """The same query, as short as it can be: an attacker pads nothing."""
    name, arguments = msgpack.unpackb(data[HEADER_BYTES:])
    arguments[-1] = b""
    return data[:HEADER_BYTES] + bytes(msgpack.packb([name, arguments]))


def _attacks_on_theirs(owner: Owner) -> list[Attack]:
    key = bytes(owner.peer_id)

    def query(name: str, *arguments: Any) -> bytes:
        body = umsgpack.packb([name, [os.urandom(20), *arguments]])
        return bytes(HEADER_BYTES) + bytes(body)

    return [
        Attack("ping", query("ping")),
        Attack("find_node", query("find_node", key)),
        Attack("find_value, record held", query("find_value", key)),
        Attack("find_value, no record", query("find_value", os.urandom(20))),
    ]
