"""Hostile nodes: real ones, whose answers are replaced on their way out.

So they do all that it takes to be believed, whatever that is: they join, prove that they can be
reached, hand out tokens, and are in the tables of others. Only what they say is not true.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from kademlia.network import Server

from benchmarks.dht.members import PORT, Member, Ours
from benchmarks.dht.unmodified import StormFree, StormFreeProtocol
from lookup_dht.wire.contact import Contact, pack_ip
from lookup_dht.wire.datagram import (
    BYTES_OUT_MAX,
    HEADER_BYTES,
    NODES_MAX,
    QUERY_TYPE,
    DatagramError,
    Method,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_reply,
)
from simulations.virtual import Host

__all__ = ["FORGE", "OMIT", "REPLAY", "SIDES", "Colluder", "Collusion", "Side", "TheirColluder"]

OMIT: Final = "omit"
"""They have no record, and know nobody but each other."""
FORGE: Final = "forge"
"""They also give a record that nobody signed, and say that it is the newest there can be."""
REPLAY: Final = "replay"
"""They also give an old record, which is signed and not expired."""

ASKED_MAX: Final = 4096
HIGHEST_SEQUENCE: Final = 2**48 - 1


class Collusion:
    """What colluders have in common: whom they know, and what they do."""

    def __init__(self, manner: str = OMIT) -> None:
        self.manner = manner
        self.old: dict[bytes, bytes] = {}
        """Old records, by the peer they are of."""
        self.members: list[Member] = []
        self._nearest: dict[bytes, list[Member]] = {}

    def enter(self, member: Member) -> None:
        self.members.append(member)
        self._nearest.clear()

    def nearest(self, key: bytes) -> list[Member]:
        """The colluders closest to ``key``: the only nodes that they tell anybody of."""
        found = self._nearest.get(key)
        if found is None:
            target = int.from_bytes(key, "big")
            found = self._nearest[key] = heapq.nsmallest(
                NODES_MAX,
                self.members,
                key=lambda member: int.from_bytes(member.node_id, "big") ^ target,
            )
        return found

    def record(self, key: bytes) -> bytes:
        """What is given for the record of ``key``; nothing if they have none."""
        old = self.old.get(key, b"")
        if self.manner == FORGE:
            return old[:-1] + bytes((old[-1] ^ 1,)) if old else b""
        return old if self.manner == REPLAY else b""


class Colluder(Ours):
    """A node of ours that has joined a collusion."""

    def __init__(
        self,
        collusion: Collusion,
        host: Host,
        seeds: Sequence[str],
        port: int = PORT,
        node_id: bytes | None = None,
    ) -> None:
        super().__init__(host, seeds, port, node_id)
        self.collusion = collusion
        self._asked: dict[bytes, bytes] = {}
        """What the queries were about that are not answered yet, by message id."""

    async def join(self) -> None:
        await super().join()
        self._stand_between(self.host.datagrams[self.address, self.port])
        self.collusion.enter(self)

    def _stand_between(self, transport: Any) -> None:
        """Between the node and its socket."""
        receive, send = transport._received, transport.sendto

        def received(data: bytes, source: Any) -> None:
            if data[0] == QUERY_TYPE:
                self._note_asked(data)
            receive(data, source)

        def sendto(data: bytes, address: Any) -> None:
            send(data if data[0] == QUERY_TYPE else self._altered(data), address)

        transport._received, transport.sendto = received, sendto

    def _note_asked(self, data: bytes) -> None:
        try:
            self._asked[data[1:HEADER_BYTES]] = decode_query(data).key
        except DatagramError:
            return
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]

    def _altered(self, data: bytes) -> bytes:
        reply = decode_reply(data)
        key = self._asked.pop(data[1:HEADER_BYTES], b"")
        altered = self._lie(reply, key)
        return encode_reply(data[1:HEADER_BYTES], altered, BYTES_OUT_MAX) or data

    def _lie(self, reply: Reply, key: bytes) -> Reply:
        if reply.method is Method.STORE:
            return reply._replace(status=StoreStatus.STORED)
        if reply.method is Method.PING or reply.again:
            return reply
        others = [it for it in self.collusion.nearest(key) if it is not self]
        nodes = tuple(_compact(member) for member in others)
        if reply.method is Method.FIND_NODE:
            return reply._replace(nodes=nodes)
        record = self.collusion.record(key)
        sequence = 0 if not record else 1
        if record and self.collusion.manner == FORGE:
            sequence = HIGHEST_SEQUENCE
        return reply._replace(nodes=nodes, record=record, sequence=sequence)


class TheirColluder(StormFree):
    """The same for the package."""

    def __init__(
        self,
        collusion: Collusion,
        host: Host,
        seeds: Sequence[str],
        port: int = PORT,
        node_id: bytes | None = None,
    ) -> None:
        self.collusion = collusion
        super().__init__(host, seeds, port, node_id)

    def make_server(self, node_id: bytes) -> Server:
        return _TheirServer(self.collusion, node_id)

    async def join(self) -> None:
        await super().join()
        self.collusion.enter(self)


class _TheirServer(Server):  # type: ignore[misc]
    def __init__(self, collusion: Collusion, node_id: bytes) -> None:
        super().__init__(node_id=node_id)
        self._collusion = collusion

    def _create_protocol(self) -> _TheirProtocol:
        return _TheirProtocol(self._collusion, self.node, self.storage, self.ksize)


class _TheirProtocol(StormFreeProtocol):
    def __init__(self, collusion: Collusion, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._collusion = collusion

    def rpc_find_node(self, sender: Any, nodeid: bytes, key: bytes) -> list[Any]:
        super().rpc_find_node(sender, nodeid, key)
        members: Iterable[Member] = self._collusion.nearest(key)
        return [[it.node_id, it.address, it.port] for it in members]

    def rpc_find_value(self, sender: Any, nodeid: bytes, key: bytes) -> Any:
        nodes = self.rpc_find_node(sender, nodeid, key)
        record = self._collusion.record(key)
        return {"value": record} if record else nodes


def _compact(member: Member) -> bytes:
    return Contact(member.node_id, pack_ip(member.address) or b"", member.port).compact


Side: TypeAlias = tuple[type[Member], type[Colluder | TheirColluder]]
"""The honest and the hostile nodes of one system."""
SIDES: Final[tuple[Side, ...]] = ((Ours, Colluder), (StormFree, TheirColluder))
