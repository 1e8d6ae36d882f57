"""The systems of the loopback figures: a network of real nodes of each, in this process."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from kademlia.crawling import NodeSpiderCrawl
from kademlia.network import Server
from kademlia.node import Node

from benchmarks.dht.records import Owner
from benchmarks.dht.unmodified import StormFreeServer, quiet, value_of
from egtp import EgtpError
from lookup_dht import DHTLookup

__all__ = ["SYSTEMS", "System"]

HOST = "127.0.0.1"
SEEDS = 4
JOIN_AT_ONCE = 10
VALUE_BYTES = 400
TIMEOUT_S = 30.0

Times: TypeAlias = tuple[float | None, float | None]
"""Until the first value, and until the newest; None if there was none."""


class System(ABC):
    """``nodes`` of one kind; record ``number`` is put by one of them and got by another."""

    package: ClassVar[str]

    def __init__(self) -> None:
        self.rng = random.Random(1)  # noqa: S311

    @abstractmethod
    async def boot(self, nodes: int) -> None: ...

    @abstractmethod
    async def put(self, number: int) -> bool: ...

    @abstractmethod
    async def get(self, number: int) -> Times: ...

    async def walk(self, number: int) -> int | None:  # noqa: ARG002
        """Look for the k nodes closest to a random place, which is the same work in whatever DHT
        with the same k; how many were found. None if the system cannot do that alone."""
        return None


class _Ours(System):
    package = "egtp"

    async def boot(self, nodes: int) -> None:
        self.nodes: list[DHTLookup] = []
        self.owners: dict[int, Owner] = {}
        await _in_batches(nodes, self._join)

    async def _join(self) -> None:
        seeds = [node.address for node in self.nodes[:SEEDS]]
        node = DHTLookup(f"{HOST}:0", seeds, private_addresses=True)
        await node.start()
        self.nodes.append(node)

    async def put(self, number: int) -> bool:
        owner = self.owners[number] = Owner(self.rng)
        try:
            await self.nodes[number % len(self.nodes)].publish(owner.record(1, time.time()))
        except EgtpError:
            return False
        return True

    async def get(self, number: int) -> Times:
        first = await self._get(number, 61, fresh=False)
        return first, await self._get(number, 31, fresh=True)

    async def walk(self, number: int) -> int | None:
        node = self.nodes[number % len(self.nodes)]
        return len(await node._node.walks.find_nodes(_key(number)))

    async def _get(self, number: int, step: int, *, fresh: bool) -> float | None:
        node = self.nodes[(number + step) % len(self.nodes)]
        began = time.perf_counter()
        try:
            await node.resolve(self.owners[number].peer_id, fresh=fresh)
        except EgtpError:
            return None
        return time.perf_counter() - began


class _Kademlia(System):
    package = "kademlia"
    server_class: type[Server] = Server

    async def boot(self, nodes: int) -> None:
        quiet()
        self.nodes: list[Any] = []
        await _in_batches(nodes, self._join)

    async def _join(self) -> None:
        seeds = [node.transport.get_extra_info("sockname") for node in self.nodes[:SEEDS]]
        node = self.server_class()
        await node.listen(0, HOST)
        if seeds:
            await node.bootstrap(seeds)
        self.nodes.append(node)

    async def put(self, number: int) -> bool:
        value = self.rng.randbytes(VALUE_BYTES)
        return bool(await self.nodes[number % len(self.nodes)].set_digest(_key(number), value))

    async def get(self, number: int) -> Times:
        began = time.perf_counter()
        value = await value_of(self.nodes[(number + 61) % len(self.nodes)], _key(number))
        return (None if value is None else time.perf_counter() - began), None

    async def walk(self, number: int) -> int | None:
        server = self.nodes[number % len(self.nodes)]
        target = Node(_key(number))
        start = server.protocol.router.find_neighbors(target)
        crawl = NodeSpiderCrawl(server.protocol, target, start, server.ksize, server.alpha)
        return len(await crawl.find())


class _Mended(_Kademlia):
    server_class = StormFreeServer


class _OpenDHT(System):
    package = "opendht"

    async def boot(self, nodes: int) -> None:
        self.dht: Any = importlib.import_module("opendht")
        self.nodes: list[Any] = []
        for number in range(nodes):
            config = self.dht.DhtConfig()
            config.setNodeId(self.dht.InfoHash.getRandom())
            node = self.dht.DhtRunner()
            node.run(port=20_000 + number, ipv4=HOST, config=config)
            for seed in range(min(number, SEEDS)):
                node.bootstrap(HOST, str(20_000 + seed))
            self.nodes.append(node)
            await asyncio.sleep(0.02)
        await asyncio.sleep(5)

    async def put(self, number: int) -> bool:
        value = self.dht.Value(self.rng.randbytes(VALUE_BYTES))
        done, tell = _from_thread()
        node = self.nodes[number % len(self.nodes)]
        node.put(self._key(number), value, lambda ok, _: tell(bool(ok)))
        return bool(await asyncio.wait_for(done, TIMEOUT_S))

    async def get(self, number: int) -> Times:
        done, tell = _from_thread()
        first: list[float] = []
        began = time.perf_counter()

        def found(_: Any) -> bool:
            first.append(time.perf_counter() - began)
            return True

        node = self.nodes[(number + 61) % len(self.nodes)]
        node.get(
            self._key(number), get_cb=found, done_cb=lambda *_: tell(time.perf_counter() - began)
        )
        newest = await asyncio.wait_for(done, TIMEOUT_S)
        return (first[0], newest) if first else (None, None)

    def _key(self, number: int) -> Any:
        return self.dht.InfoHash.get(str(number))


class _Libtorrent(System):
    package = "libtorrent"

    async def boot(self, nodes: int) -> None:
        self.lt: Any = importlib.import_module("libtorrent")
        self.nodes: list[Any] = []
        self.keys: dict[int, tuple[bytes, bytes]] = {}
        for number in range(nodes):
            seeds = [f"{HOST}:{20_000 + seed}" for seed in range(min(number, SEEDS))]
            self.nodes.append(self._session(20_000 + number, seeds))
            await asyncio.sleep(0.02)
        await asyncio.sleep(10)

    def _session(self, port: int, seeds: list[str]) -> Any:
        session = self.lt.session({
            "listen_interfaces": f"{HOST}:{port}",
            "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
            "alert_mask": self.lt.alert.category_t.dht_notification
            | self.lt.alert.category_t.dht_operation_notification,
            # All are on one address here, which it takes for an attack otherwise.
            "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
            "dht_prefer_verified_node_ids": False, "dht_ignore_dark_internet": False,
            "dht_upload_rate_limit": 10_000_000, "dht_block_ratelimit": 1_000_000,
            "dht_bootstrap_nodes": ",".join(seeds),
        })  # fmt: skip
        for seed in seeds:
            session.add_dht_node((HOST, int(seed.partition(":")[2])))
        return session

    async def put(self, number: int) -> bool:
        owner = Owner(self.rng)
        signing_key = owner.identity.signing_key
        seed = signing_key.private_bytes_raw()
        public = signing_key.public_key().public_bytes_raw()
        secret = _expanded(seed)
        self.keys[number] = (public, secret)
        session = self.nodes[number % len(self.nodes)]
        session.pop_alerts()
        value = self.rng.randbytes(VALUE_BYTES)
        session.dht_put_mutable_item(secret, public, value, b"")
        _, alert = await self._wait(session, "dht_put_alert", lambda _: True)
        return alert is not None and alert.num_success > 0

    async def get(self, number: int) -> Times:
        public, _ = self.keys[number]
        session = self.nodes[(number + 61) % len(self.nodes)]
        session.pop_alerts()
        began = time.perf_counter()
        session.dht_get_mutable_item(public, b"")
        first: list[float] = []

        def look(alert: Any) -> bool:
            if alert.item and not first:
                first.append(time.perf_counter() - began)
            return bool(alert.authoritative)

        newest, _ = await self._wait(session, "dht_mutable_item_alert", look)
        return (first[0], newest) if first else (None, None)

    async def _wait(
        self, session: Any, kind: str, last: Callable[[Any], bool]
    ) -> tuple[float | None, Any]:
        """Nothing else runs on this loop: the sessions have threads of their own."""
        began = time.perf_counter()
        while (left_s := began + TIMEOUT_S - time.perf_counter()) > 0:
            session.wait_for_alert(int(1000 * left_s))
            for alert in session.pop_alerts():
                if type(alert).__name__ == kind and last(alert):
                    return time.perf_counter() - began, alert
        return None, None


SYSTEMS: dict[str, type[System]] = {
    "ours": _Ours,
    "kademlia": _Kademlia,
    "kademlia, storms mended": _Mended,
    "OpenDHT": _OpenDHT,
    "libtorrent": _Libtorrent,
}


async def _in_batches(nodes: int, join: Callable[[], Any]) -> None:
    for _ in range(min(nodes, SEEDS)):
        await join()
    for begin in range(SEEDS, nodes, JOIN_AT_ONCE):
        await asyncio.gather(*(join() for _ in range(min(JOIN_AT_ONCE, nodes - begin))))


def _key(number: int) -> bytes:
    return random.Random(number).randbytes(20)  # noqa: S311


def _expanded(seed: bytes) -> bytes:
    """A secret key as libtorrent wants it."""
    digest = bytearray(hashlib.sha512(seed).digest())
    digest[0] &= 248
    digest[31] = digest[31] & 63 | 64
    return bytes(digest)


def _from_thread() -> tuple[asyncio.Future[Any], Callable[[Any], None]]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def set_once(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    return future, lambda value: loop.call_soon_threadsafe(set_once, value)  # type: ignore[return-value]
