"""EGTP, through its public API: an ``async def`` handler, and ``await node.query(...)``.

A session, where sessions are counted, is a connection with a handshake of its own, by a client node
that was made before, as a TLS client has its context and its certificate: it has to connect, to
prove itself and see the other side do so, to get its first reply, and to say goodbye. Nothing of an
earlier session is used again.

A form like ``without deadlines`` takes away a promise, to see what it costs (see
:mod:`benchmarks.without`); ``wide`` lifts the limit of queries that one peer may have open; with
``busy polling``, nobody's loop sleeps while traffic is lively; with ``known``, the client has so
many other peers in its book.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from benchmarks.asyncio_station import take_part_on_asyncio
from benchmarks.load import Call
from benchmarks.without import take_away
from discovery import StaticDiscovery
from egtp import (
    Address,
    AnswerLimits,
    CommRecord,
    ContactLink,
    Identity,
    Incoming,
    MemoryLookup,
    Node,
    NodeConfig,
    NodeId,
    SignedCommRecord,
    TCPStrat,
)
from egtp.discovery_service import Introduction
from egtp.values.comm_record import SUITE_AESGCM

CONFIG = NodeConfig(
    private_addresses=True,
    # What is held idle on purpose is not to be closed as idle.
    idle_timeout_s=3600.0,
    dial_timeout_s=30.0,
    # All clients come from one address, as fast as they can; that is what is measured.
    connections_max=20_000,
    connections_per_ip_max=10_000,
    strangers_share=1.0,
    accepts_per_s=100_000.0,
    accepts_per_ip_per_s=100_000.0,
)
WIDE = replace(
    CONFIG,
    open_queries_max=200_000,
    exchanges_max=400_000,
    answers=AnswerLimits(window=400_000, entries_max=400_000),
)
FORMS = {"wide": WIDE, "busy polling": replace(CONFIG, busy_poll_s=0.0005)}


async def echo(query: Incoming) -> bytes:
    return query.body


async def serve(settings: dict[str, Any]) -> object:
    _apply(settings)
    relay: str | None = settings.get("relay")
    discovery = None
    if relay is not None:
        link = ContactLink.parse(relay)
        discovery = StaticDiscovery([Introduction(link.peer_id, link.record)])
    node = Node(
        Identity.generate(os.urandom),
        listen="127.0.0.1:0" if relay is None else (),
        lookup=MemoryLookup(),
        discovery=discovery,
        config=_config(settings),
    )
    node.handle("echo", echo)
    await node.start()
    while relay is not None and not node.relays:
        await asyncio.sleep(0.02)
    return node.link


async def relay(settings: dict[str, Any]) -> object:
    node = Node(
        Identity.generate(os.urandom),
        listen="127.0.0.1:0",
        lookup=MemoryLookup(),
        relay_server=True,
        config=_config(settings),
    )
    await node.start()
    return node.link


class NodeSession:
    def __init__(self, node: Node, peer_id: NodeId, idle: list[Node]) -> None:
        self._node, self._peer_id, self._idle = node, peer_id, idle
        self.call: Call = partial(node.query, peer_id, "echo")

    async def close(self) -> None:
        await self._node.disconnect(self._peer_id)
        self._idle.append(self._node)


class Connector:
    """Makes sessions. Identities are made beforehand, and the server's contact is read and verified
    once, as a TLS client reads its certificates once. A client that was given a contact needs no
    lookup service."""

    def __init__(self) -> None:
        self._contacts: dict[str, ContactLink] = {}
        self._idle: list[Node] = []
        """Nodes that are not connected now."""

    async def connect(self, settings: dict[str, Any]) -> NodeSession:
        node = self._idle.pop() if self._idle else await self._new_node(settings)
        peer_id = node.add_contact(self._contact(settings["address"]))
        return NodeSession(node, peer_id, self._idle)

    async def _new_node(self, settings: dict[str, Any]) -> Node:
        _apply(settings)
        # Thousands of client nodes in one process would keep it busy; servers clean up as always.
        config = replace(
            _config(settings), clean_up_interval_s=60.0, address_check_interval_s=600.0
        )
        node = Node(Identity.generate(os.urandom), config=config)
        await node.start()
        for number in range(settings.get("known", 0)):
            node.add_contact(_stranger(number))
        return node

    def _contact(self, address: str) -> ContactLink:
        if address not in self._contacts:
            self._contacts[address] = ContactLink.parse(address)
        return self._contacts[address]


def _config(settings: dict[str, Any]) -> NodeConfig:
    return FORMS.get(settings.get("form", ""), CONFIG)


def _stranger(number: int) -> SignedCommRecord:
    """The record of a peer that is never called."""
    identity = Identity.generate(os.urandom)
    content = CommRecord(
        int(time.time()) + 3600,
        os.urandom(8),
        ((SUITE_AESGCM, identity.channel_key),),
        (TCPStrat(Address.parse(f"127.0.0.1:{1024 + number % 60_000}")),),
    )
    return SignedCommRecord.sign(identity, 1, content)


def _apply(settings: dict[str, Any]) -> None:
    promise = settings.get("form", "").partition("without ")[2]
    if promise and promise not in _WITHOUT:
        _WITHOUT[promise] = take_away(promise)
        _WITHOUT[promise].__enter__()


_WITHOUT: Final[dict[str, AbstractContextManager[None]]] = {}
"""What this process is without, as long as it lives."""


if __name__ == "__main__":
    take_part_on_asyncio(serve, Connector().connect, relay=relay)
