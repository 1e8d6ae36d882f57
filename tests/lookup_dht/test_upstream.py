"""It is still kademlia, and the very version whose methods were overridden."""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from kademlia.crawling import SpiderCrawl
from kademlia.network import Server
from kademlia.protocol import KademliaProtocol
from kademlia.routing import RoutingTable
from kademlia.storage import IStorage
from rpcudp.protocol import RPCProtocol

import lookup_dht
from lookup_dht import DHTLookup
from lookup_dht.kademlia_crawl import LookupCrawl
from lookup_dht.kademlia_protocol import LookupProtocol
from lookup_dht.kademlia_server import LookupServer

# What is overridden, and what is relied on. When a hash changes, read the new source first.
SOURCES: dict[Callable[..., Any], str] = {
    Server.__init__: "3595e5eb830ae550",
    Server.listen: "315ab7026e394113",
    Server.stop: "6664097a6c1a3c8f",
    Server._create_protocol: "e0ea444b51843206",
    Server.refresh_table: "dcc9e3dc60861470",
    Server._refresh_table: "721a0a55dfd4b893",
    Server.bootstrap: "5a05c3729c1f9e01",
    Server.bootstrap_node: "5dce23303f9bb1c0",
    Server.bootstrappable_neighbors: "7b54d7280cf4efd0",
    Server.get: "255b8b1237fa067a",
    Server.set: "666ee11512f267ba",
    Server.set_digest: "ea713816200dbf04",
    Server.save_state: "a6db8f5f0413b8bd",
    Server.load_state: "6f8e9b7016892d07",
    KademliaProtocol.__init__: "0380feb5144862e2",
    KademliaProtocol.get_refresh_ids: "5eaa3f9c22a21d0a",
    KademliaProtocol.rpc_stun: "97109a04f97df411",
    KademliaProtocol.rpc_ping: "832e48f35beb09ff",
    KademliaProtocol.rpc_store: "bc22f1d32a423ec2",
    KademliaProtocol.rpc_find_node: "ecafaeb9e2f0fb2c",
    KademliaProtocol.rpc_find_value: "8c4b7115f40c14df",
    KademliaProtocol.call_find_node: "5db508c5c2af9028",
    KademliaProtocol.call_find_value: "44e489d268101957",
    KademliaProtocol.call_ping: "608ab82b6a6e9090",
    KademliaProtocol.call_store: "d018dae24fb710de",
    KademliaProtocol.welcome_if_new: "89fb8112eff699a3",
    KademliaProtocol.handle_call_response: "d66f2440051f05a0",
    RPCProtocol.__init__: "80bd176cf39543aa",
    RPCProtocol.connection_made: "3538c2bbca8ae515",
    RPCProtocol.datagram_received: "f41081ed7941aa8b",
    RPCProtocol.__getattr__: "a4f577af6d7b0a7a",
    RoutingTable.__init__: "d64700d5d9557f54",
    RoutingTable.flush: "23387d2ac0402bd9",
    RoutingTable.lonely_buckets: "950b33961cf9d13f",
    RoutingTable.remove_contact: "f9314ff1bb32d081",
    RoutingTable.is_new_node: "536747776c555bbe",
    RoutingTable.add_contact: "ef1c7b127b1492fb",
    RoutingTable.get_bucket_for: "a7a457e210ce8ab4",
    RoutingTable.find_neighbors: "89099f9cd007032b",
    SpiderCrawl.__init__: "09c8217205a81e59",
    SpiderCrawl._find: "6b52dfbc8f9b2943",
}


async def test_every_layer_is_a_subclass_of_the_librarys(
    start: Callable[..., Awaitable[DHTLookup]],
) -> None:
    node = (await start())._node
    assert isinstance(node, Server)
    assert isinstance(node.protocol, KademliaProtocol)
    assert isinstance(node.protocol, RPCProtocol)
    assert isinstance(node.protocol.router, RoutingTable)
    assert isinstance(node.storage, IStorage)
    assert node.protocol.storage is node.storage
    assert issubclass(LookupServer.protocol_class, LookupProtocol)
    assert issubclass(LookupCrawl, SpiderCrawl)


def test_the_versions_are_those_that_were_read() -> None:
    assert (version("kademlia"), version("rpcudp")) == ("2.2.3", "5.0.1")


@pytest.mark.parametrize("function", SOURCES, ids=lambda it: it.__qualname__)
def test_the_source_of_what_is_overridden_has_not_changed(function: Callable[..., Any]) -> None:
    digest = hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    assert digest[:16] == SOURCES[function]


async def test_an_unknown_name_is_an_error_and_not_a_remote_call(
    start: Callable[..., Awaitable[DHTLookup]],
) -> None:
    protocol = (await start())._node.protocol
    assert not hasattr(protocol, "pnig")
    with pytest.raises(AttributeError, match="pnig"):
        protocol.pnig(("127.0.0.1", 1))


async def test_the_pickling_of_upstream_is_gone(
    start: Callable[..., Awaitable[DHTLookup]],
) -> None:
    node = (await start())._node
    with pytest.raises(NotImplementedError):
        node.save_state("file")
    with pytest.raises(NotImplementedError):
        await type(node).load_state("file", 0)


def test_only_the_modules_named_for_it_see_kademlia() -> None:
    seeing = set()
    for path in Path(lookup_dht.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [it.name for it in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] in ("kademlia", "rpcudp") for name in names):
                seeing.add(path.stem)
    assert seeing
    assert all(name.startswith("kademlia_") for name in seeing)
