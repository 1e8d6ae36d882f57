"""It is still kademlia, and the very version whose methods were overridden."""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import kademlia
import pytest
from kademlia.crawling import SpiderCrawl
from kademlia.network import Server
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from kademlia.routing import RoutingTable
from kademlia.storage import IStorage
from rpcudp.protocol import RPCProtocol

import lookup_dht
from egtp.values.comm_record import SignedCommRecord
from egtp.values.identity import Identity
from lookup_dht import DHTLookup
from lookup_dht.kademlia_server import LookupServer
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.settings import NodeSettings
from lookup_dht.table.kademlia_table import LookupTable
from lookup_dht.walks.kademlia_crawl import LookupCrawl
from lookup_dht.wire.contact import Contact

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
    IStorage: "5c47a5752746105d",
    Node: "91582f4db0ab9767",
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
    for path in Path(lookup_dht.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [it.name for it in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if any(name.split(".")[0] in ("kademlia", "rpcudp") for name in names):
                seeing.add(path.stem)
    assert seeing
    assert all(name.startswith("kademlia_") for name in seeing)


# Upstream's own tests. Those of the classes that are used as they are, run as they are; the others,
# one by one, of our classes. Upstream's keys and values are any strings, ours are records.


def test_upstreams_tests_of_what_is_used_as_it_is_pass() -> None:
    folder = Path(kademlia.__file__).parent / "tests"
    arguments: list[str | Path] = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull,
        "--rootdir", folder, folder / "test_node.py", folder / "test_storage.py",
        folder / "test_utils.py",
    ]  # fmt: skip
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout


async def test_storing(
    start: Callable[..., Awaitable[DHTLookup]],
    identity: Identity,
    sign: Callable[..., SignedCommRecord],
) -> None:
    """Upstream's test_server.test_storing."""
    bootstrap_node = (await start())._node
    server = (await start())._node
    assert await server.bootstrap([bootstrap_node.bound])
    key, value = bytes(identity.node_id), sign(identity, 5).encode()
    await server.set(key, value)
    assert await server.get(key) == value


def settings() -> NodeSettings:
    return NodeSettings(time.time, time.monotonic, os.urandom, private_addresses=True)


async def test_default_protocol() -> None:
    """Upstream's TestSwappableProtocol. Ours has its protocol before it listens, too."""
    server = LookupServer(settings(), os.urandom(20))
    await server.listen(0, "127.0.0.1")
    assert isinstance(server.protocol, KademliaProtocol)
    await server.close()


async def test_custom_protocol() -> None:
    """Upstream's TestSwappableProtocol."""

    class CoconutProtocol(LookupProtocol):
        pass

    class HuskServer(LookupServer):
        protocol_class = CoconutProtocol

    server = LookupServer(settings(), os.urandom(20))
    await server.listen(0, "127.0.0.1")
    assert not isinstance(server.protocol, CoconutProtocol)
    await server.close()
    husk_server = HuskServer(settings(), os.urandom(20))
    await husk_server.listen(0, "127.0.0.1")
    assert isinstance(husk_server.protocol, CoconutProtocol)
    await husk_server.close()


def table(k: int) -> LookupTable:
    return LookupTable(None, k, Node(bytes(20)), settings(), Counter())


def near_half(number: int) -> Contact:
    return Contact(bytes([128]) + number.to_bytes(19, "big"), bytes([127, 1, 1, number]), 9)


def test_add_contact() -> None:
    """Upstream's TestRoutingTable."""
    router = table(20)
    router.add_contact(near_half(1))
    assert len(router.buckets) == 1
    assert len(next(iter(router.buckets.values())).entries) == 1


def test_split_no_overlap() -> None:
    """Upstream's TestKBucket, whose buckets are split; ours are there from the beginning: each id
    belongs to exactly one, and all in it are closer than all in the one before it."""
    router = table(20)
    for bit in range(160):
        assert router.get_bucket_for(Node((1 << bit).to_bytes(20, "big"))) == 159 - bit
        assert router.get_bucket_for(Node(((2 << bit) - 1).to_bytes(20, "big"))) == 159 - bit


def test_add_node() -> None:
    """Upstream's TestKBucket: when full, return false; who is added again is put at the end."""
    router = table(2)
    assert router.add_contact(near_half(1)) is True
    assert router.add_contact(near_half(2)) is True
    assert router.add_contact(near_half(3)) is False
    assert len(router) == 2
    router.add_contact(near_half(1))
    assert list(router) == [near_half(2), near_half(1)]


def test_remove_node_and_replacement_factor() -> None:
    """Upstream's TestKBucket: those that found no place wait, the latest is the first to get one,
    and there are not more of them than places."""
    k = 3
    router = table(k)
    nodes = [near_half(number) for number in range(1, 11)]
    for node in nodes:
        router.add_contact(node)
    (bucket,) = router.buckets.values()
    assert list(router) == nodes[:k]
    assert list(bucket.replacements.values()) == nodes[-k:]
    router.remove_contact(nodes[-1])  # It has no place, so it is not removed from one.
    assert list(router) == nodes[:k]
    router.remove_contact(nodes[0])
    assert list(router) == [*nodes[1:k], nodes[-1]]
    for node in nodes:
        router.remove_contact(node)
        router.remove_contact(node)
    for node in list(router):
        router.remove_contact(node)
    assert not list(bucket.replacements.values())


def test_iteration() -> None:
    """Upstream's TestTableTraverser goes through the buckets around a node, and stops early; ours
    gives everybody in the order of distance."""
    router = table(2)
    nodes = [
        Contact(number.to_bytes(20, "big"), bytes([127, 1, 1, number]), 9)
        for number in range(1, 10)
    ]
    for node in nodes:
        router.add_contact(node)
    kept = set(router)
    assert router.closest(4, 10) == sorted(kept, key=lambda it: it.long_id ^ 4)
