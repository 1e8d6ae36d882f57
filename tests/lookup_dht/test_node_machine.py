"""Whatever strangers do to a node, in whatever order, it keeps its bounds and tells no lies.

Hypothesis draws a story: a real node on a simulated machine among strangers who answer honestly,
crookedly or not at all, ask what they like, store what they have signed, at any time and again;
clocks jump, and the node starts again from what it has kept. After each step its tables are
consistent and within their bounds, and whatever it holds or returns is valid.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import Any, Final, cast

from hypothesis import settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from egtp import Identity, LookupFailed, PublishFailed
from egtp.errors import InvalidRecord
from egtp.values.comm_record import SUITE_AESGCM, CommRecord, SignedCommRecord
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.wire.contact import Contact, pack_ip
from lookup_dht.wire.datagram import (
    DatagramError,
    Method,
    Query,
    Reply,
    StoreStatus,
    decode_query,
    decode_reply,
    encode_query,
    encode_reply,
)
from lookup_dht.wire.node_id import fits_public, new_node_id
from simulations.virtual import Link, LogNormal, Network, Session

NODE: Final = ("11.0.0.1", 9000)
STRANGERS: Final = 14
OF_ONE_NETWORK: Final = 6
"""The first of them are in one /24."""
SEEDS: Final = 2
"""The last of them."""
PEERS: Final = 8
HOUR_S: Final = 3600
LIMITS: Final = DHTLimits(
    replication=4,
    records_max=4,
    records_per_source=2,
    sequences_max=16,
    verified_records_max=4,
    cached_max=4,
    pending_queries_max=24,
    probes_max=4,
    group_contacts_max=3,
    region_nodes_max=8,
    witnesses=2,
    walk_queries_max=20,
    hand_over_max=4,
    sequence_ahead_max_s=HOUR_S,
)
CALM_S: Final = 300.0
"""After this long nothing is left of what strangers did, and the node is whole."""
CALL_S: Final = 30.0
"""No call takes longer."""
REFUSED: Final = ("127.0.0.1", "10.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", NODE[0])  # noqa: S104

BEHAVIOURS: Final = (
    "honest", "silent", "garbled", "another id", "client", "always again", "old records",
    "forged records", "inventor", "twice", "from elsewhere",
)  # fmt: skip
GOOD: Final = "good"
TOKENS: Final = ("none", GOOD, "old", "of another", "random")
WHERE: Final = st.integers(0, STRANGERS - 1)
WHOSE: Final = st.integers(0, PEERS - 1)
CHANGES: Final[st.SearchStrategy[list[tuple[int, int]]]] = st.one_of(
    st.just([]), st.lists(st.tuples(st.integers(0, 1500), st.integers(1, 255)), max_size=3)
)


class Stranger(asyncio.DatagramProtocol):
    """Somebody with a socket. What it answers, its behaviour says."""

    def __init__(self, machine: NodeMachine, number: int, address: str, node_id: bytes) -> None:
        self.machine = machine
        self.number = number
        self.contact = Contact(node_id, cast("bytes", pack_ip(address)), 4000 + number)
        self.behaviour = "honest"
        self.rng = random.Random(number)
        self.records: dict[bytes, list[SignedCommRecord]] = {}
        self.tokens: list[bytes] = []
        """Those that the node gave it, the latest last."""
        self.replies: list[bytes] = []
        """What it has answered lately."""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[0] == 0:
            self._asked(data, addr)
            return
        with suppress(DatagramError):
            reply = decode_reply(data)
            if reply.token:
                self.tokens.append(reply.token)

    def _asked(self, data: bytes, source: tuple[Any, ...]) -> None:
        query = decode_query(data)
        if self.behaviour == "silent" or query.method is Method.REACH:
            return
        reply = self._crooked(query, self._honest(query, source))
        encoded = encode_reply(data[1:21], reply, 1200)
        assert encoded is not None
        if self.behaviour == "garbled":
            encoded = garbled(
                encoded, [(self.rng.randrange(len(encoded)), 1 << self.rng.randrange(8))]
            )
        self.replies = [*self.replies[-3:], encoded]
        sender = self.machine.other(self) if self.behaviour == "from elsewhere" else self
        for _ in range(1 + (self.behaviour == "twice")):
            sender.transport.sendto(encoded, source)

    def _honest(self, query: Query, source: tuple[Any, ...]) -> Reply:
        observed = Contact(bytes(20), cast("bytes", pack_ip(source[0])), source[1]).home
        head = Reply(query.method, "main", self.contact.id, True, observed)
        if query.method is Method.PING:
            return head
        head = head._replace(token=b"token")
        if query.method is Method.STORE:
            with suppress(InvalidRecord):
                self.machine.keep(self, SignedCommRecord.decode(query.record))
            return head._replace(status=StoreStatus.STORED)
        target = int.from_bytes(query.key, "big")
        near = sorted(self.machine.strangers, key=lambda it: it.contact.long_id ^ target)
        nodes = tuple(it.contact.compact for it in near if it is not self)[:20]
        held = max(self.records.get(query.key, []), key=lambda it: it.sequence, default=None)
        if query.method is Method.FIND_NODE or held is None:
            return head._replace(nodes=nodes)
        record = held.encode() if held.sequence > query.sequence else b""
        return head._replace(nodes=nodes, sequence=held.sequence, record=record)

    def _crooked(self, query: Query, honest: Reply) -> Reply:  # noqa: PLR0911
        held = self.records.get(query.key)
        match self.behaviour:
            case "another id":
                return honest._replace(sender=self.rng.randbytes(20))
            case "client":
                return honest._replace(server=False)
            case "always again":
                return honest._replace(again=query.method is not Method.PING)
            case "inventor" if honest.nodes:
                return honest._replace(nodes=tuple(self._invented(query.key) for _ in range(20)))
            case "forged records" if honest.record:
                forged = garbled(honest.record, [(len(honest.record) - 1, 1)])
                return honest._replace(record=forged)
            case "old records" if held:
                oldest = min(held, key=lambda it: it.sequence)
                return honest._replace(sequence=oldest.sequence, record=oldest.encode())
        return honest

    def _invented(self, key: bytes) -> bytes:
        address = self.rng.choice([*REFUSED, f"12.0.0.{self.rng.randrange(1, 250)}"])
        packed = cast("bytes", pack_ip(address))
        node_id = new_node_id(packed, self.rng.randbytes)
        close = self.rng.choice([node_id, key, node_id[:3] + key[3:], self.contact.id])
        return close + packed + self.rng.choice([0, 1, 9000, 65535]).to_bytes(2, "big")


def garbled(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    """Some bytes are others, or the datagram is shorter."""
    changed = bytearray(data)
    for place, bits in changes:
        if place < len(changed):
            changed[place] ^= bits
        else:
            del changed[place % max(1, len(changed)) :]
    return bytes(changed)


class NodeMachine(stateful.RuleBasedStateMachine):
    """The story of one node."""

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.world_ends = ExitStack()
        self.strangers: list[Stranger] = []
        self.keys: list[bytes] = []
        self.resolved: dict[bytes, int] = {}
        """The highest sequence that the node has returned, as far as it remembers."""
        self.states: list[Any] = [None]
        """What it has kept so far: nothing at first."""
        self.counted = 0
        self.broken = False

    @initialize(
        seed=st.integers(0), server=st.sampled_from([True, True, True, None]), on_disk=st.booleans()
    )
    def begin(self, seed: int, server: bool | None, on_disk: bool) -> None:
        self.network = Network(seed, link=Link(latency=LogNormal(0.03, 0.5)))
        self.session = self.world_ends.enter_context(Session(self.network))
        self.host = self.network.host("node", NODE[0])
        self.server = server
        self.record_file = self.host.disk / "records" if on_disk else None
        rng = random.Random(seed)
        self.peers = [Identity.generate(rng.randbytes) for _ in range(PEERS + 1)]
        self.keys = [bytes(peer.node_id) for peer in self.peers[:PEERS]]
        self.run(self._begin(rng))

    async def _begin(self, rng: random.Random) -> None:
        loop = asyncio.get_running_loop()
        for number in range(STRANGERS):
            net = 1 if number < OF_ONE_NETWORK else number + 1
            address = f"12.0.{net}.{number + 1}"
            node_id = new_node_id(pack_ip(address), rng.randbytes)
            stranger = Stranger(self, number, address, node_id)
            self.strangers.append(stranger)
            host = self.network.host(f"stranger-{number}", address)
            opening = loop.create_datagram_endpoint(
                lambda it=stranger: it,  # type: ignore[misc]
                local_addr=(address, stranger.contact.port),
            )
            await host.run(opening)
        await self._start(None)

    async def _start(self, state: Any) -> None:
        host = self.host
        seeds = [f"{it.contact.ip}:{it.contact.port}" for it in self.strangers[-SEEDS:]]
        self.node = DHTLookup(
            f"{NODE[0]}:{NODE[1]}", seeds, server=self.server, state=state,
            store=self.record_file, limits=LIMITS,
            unix_time=host.unix_time, elapsed=host.elapsed, entropy=host.entropy,
        )  # fmt: skip
        self.counted = 0
        if self.record_file is None:
            self.resolved = {}
        await host.run(self.node.start())

    def other(self, one: Stranger) -> Stranger:
        return self.strangers[(one.number + 1) % STRANGERS]

    def keep(self, stranger: Stranger, record: SignedCommRecord) -> None:
        stranger.records.setdefault(record.peer_id, []).append(record)

    def signed(self, whose: int, sequence: int, lives_s: int) -> SignedCommRecord:
        now, peer = int(self.host.unix_time()), self.peers[whose]
        content = CommRecord(
            max(1, now + lives_s), bytes(8), ((SUITE_AESGCM, peer.channel_key),), ()
        )
        return SignedCommRecord.sign(peer, max(1, now + sequence), content)

    # What strangers do

    @rule(who=WHERE, how=st.sampled_from(BEHAVIOURS))
    def behave(self, who: int, how: str) -> None:
        self.strangers[who].behaviour = how

    @rule(how=st.sampled_from(BEHAVIOURS))
    def all_behave(self, how: str) -> None:
        for stranger in self.strangers:
            stranger.behaviour = how

    @rule(
        who=WHERE, method=st.sampled_from(list(Method)), whose=WHOSE,
        token=st.sampled_from(TOKENS), server=st.booleans(), prove=st.booleans(), changes=CHANGES,
        known=st.integers(0, 2**48 - 1),
    )  # fmt: skip
    def ask(
        self, who: int, method: Method, whose: int, token: str, server: bool, prove: bool,
        changes: list[tuple[int, int]], known: int,
    ) -> None:  # fmt: skip
        stranger, key = self.strangers[who], self.keys[whose]
        record = self.signed(whose, 0, HOUR_S).encode() if method is Method.STORE else b""
        query = Query(
            method, "main", stranger.contact.id, server, key, record,
            self._token(stranger, token), known, prove and method is Method.PING,
            address=self.other(stranger).contact.home if method is Method.REACH else b"",
        )  # fmt: skip
        self.send(stranger, garbled(encode_query(self._id(), query), changes))

    @rule(
        who=WHERE, whose=WHOSE, sequence=st.integers(-2 * HOUR_S, 2 * HOUR_S),
        lives_s=st.sampled_from([-1, 1, 60, HOUR_S, 24 * HOUR_S, 30 * HOUR_S]),
        at=WHOSE, token=st.sampled_from((GOOD, GOOD, *TOKENS)), changes=CHANGES,
    )  # fmt: skip
    def store(
        self, who: int, whose: int, sequence: int, lives_s: int, at: int, token: str,
        changes: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        """Mostly under its own key, and unchanged."""
        key = self.keys[whose if at % 4 else at]
        self._store(self.strangers[who], self.signed(whose, sequence, lives_s), key, token, changes)

    @rule(who=WHERE, sequence=st.integers(-HOUR_S, HOUR_S // 2), alone=st.booleans())
    def store_of_all(self, who: int, sequence: int, alone: bool) -> None:
        """More than the node keeps of one stranger, or of all together."""
        for whose, key in enumerate(self.keys):
            stranger = self.strangers[who if alone else (who + whose) % STRANGERS]
            self._store(stranger, self.signed(whose, sequence, HOUR_S), key, GOOD, [])

    def _store(
        self, stranger: Stranger, record: SignedCommRecord, key: bytes, token: str,
        changes: list[tuple[int, int]],
    ) -> None:  # fmt: skip
        self.keep(stranger, record)
        if token == GOOD:
            ask = Query(Method.FIND_NODE, "main", stranger.contact.id, False, key)
            self.send(stranger, encode_query(self._id(), ask))
        query = Query(
            Method.STORE, "main", stranger.contact.id, True, key, garbled(record.encode(), changes),
            self._token(stranger, token),
        )  # fmt: skip
        if query.record:
            self.send(stranger, encode_query(self._id(), query))

    @rule(who=WHERE, as_whom=WHERE)
    def reply_again(self, who: int, as_whom: int) -> None:
        for data in self.strangers[as_whom].replies:
            self.send(self.strangers[who], data)

    @rule(who=WHERE, data=st.binary(max_size=1500))
    def send_anything(self, who: int, data: bytes) -> None:
        self.send(self.strangers[who], data)

    @rule(who=WHERE, count=st.integers(2, 500))
    def flood(self, who: int, count: int) -> None:
        stranger = self.strangers[who]
        query = Query(Method.FIND_VALUE, "main", stranger.contact.id, True, self.keys[0])
        for _ in range(count):
            stranger.transport.sendto(encode_query(self._id(), query), NODE)
        self.run(asyncio.sleep(0.2))

    def _token(self, stranger: Stranger, which: str) -> bytes:
        given = stranger.tokens
        match which:
            case "none":
                return b""
            case "good" if given:
                return given[-1]
            case "old" if given:
                return given[0]
            case "of another":
                others = self.other(stranger).tokens
                return others[-1] if others else b""
        return bytes(8)

    def _id(self) -> bytes:
        return self.network.story.entropy(20)

    def send(self, stranger: Stranger, data: bytes) -> None:
        stranger.transport.sendto(data, NODE)
        self.run(asyncio.sleep(0.2))

    @rule(whose=WHOSE, sequence=st.integers(-HOUR_S, HOUR_S // 2))
    def publish_elsewhere(self, whose: int, sequence: int) -> None:
        record = self.signed(whose, sequence, 24 * HOUR_S)
        for stranger in self.strangers:
            self.keep(stranger, record)

    @rule(whose=WHOSE, sequence=st.integers(-HOUR_S, 0))
    def all_roll_back(self, whose: int, sequence: int) -> None:
        """To the oldest record that they have seen, which is no answer any more."""
        self.publish_elsewhere(whose, sequence)
        self.publish_elsewhere(whose, sequence + 1)
        self.resolve(whose, fresh=False, newer=False)
        for stranger in self.strangers:
            seen = stranger.records[self.keys[whose]]
            seen.sort(key=lambda it: it.sequence)
            del seen[1:]
        self.resolve(whose, fresh=True, newer=False)

    # What its user does

    @rule(whose=WHOSE, fresh=st.booleans(), newer=st.booleans())
    def resolve(self, whose: int, fresh: bool, newer: bool) -> None:
        key = self.keys[whose]
        floor = self.resolved.get(key, 0)
        peer_id = self.peers[whose].node_id
        call = self.node.resolve(peer_id, fresh=fresh, newer_than=floor if newer else 0)
        with suppress(LookupFailed):
            record = self.run(self.host.run(call))
            assert record.peer_id == key
            assert record.sequence >= floor + newer
            self.check(key, record.encode())
            self.resolved[key] = record.sequence

    @rule(whose=WHOSE, sequence=st.integers(-HOUR_S, HOUR_S), lives_s=st.integers(1, 24 * HOUR_S))
    def publish(self, whose: int, sequence: int, lives_s: int) -> None:
        record = self.signed(whose, sequence, lives_s)
        with suppress(PublishFailed):
            self.run(self.host.run(self.node.publish(record)))
            key = self.keys[whose]
            self.resolved[key] = max(record.sequence, self.resolved.get(key, 0))

    # What happens to its machine

    @rule(seconds=st.sampled_from([0.05, 1, 31, 299, 301, 1000, 4000, 20_000]))
    def time_passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds), limit_s=2 * seconds + CALL_S)

    @rule(seconds=st.sampled_from([-90_000, -4000, -60, 60, 4000, 90_000]))
    def clock_jumps(self, seconds: int) -> None:
        self.host.step_clock(seconds)

    @rule(minutes=st.integers(1, 300))
    def sleep(self, minutes: int) -> None:
        self.host.sleep()
        self.run(asyncio.sleep(60 * minutes), limit_s=61 * minutes)
        self.host.wake()
        self.run(asyncio.sleep(1))

    @rule(which=st.integers(0, 3))
    def restart(self, which: int) -> None:
        """From its latest state, or an earlier one."""
        self.states.append(self.node.state)
        state = self.states[-1 - which % len(self.states)]
        if state is not None:
            state = type(state).decode(state.encode())
        self.run(self.host.run(self.node.close()))
        self.run(self._start(state))

    # What is true at any moment

    @stateful.invariant()
    def nothing_is_wrong(self) -> None:
        if self.session is None or self.broken:
            return
        self.broken = True
        node = self.node._node
        protocol, table, store = node.protocol, node.protocol.router, node.storage
        assert len(protocol.asker.queries) <= LIMITS.pending_queries_max
        assert len(protocol.acquaintances.probes) <= LIMITS.probes_max
        self._check_table(table)
        self._check_store(store)
        counted = sum(self.node.counters.values())
        assert counted >= self.counted
        self.counted = counted
        self.broken = False

    def _check_table(self, table: Any) -> None:
        by_number = {it.contact.address: number for number, it in enumerate(self.strangers)}
        entries = [entry for bucket in table.buckets.values() for entry in bucket.entries.values()]
        assert {entry.contact.address: entry for entry in entries} == table._at
        assert len(entries) == len(table)
        for bucket in table.buckets.values():
            assert len(bucket.entries) <= LIMITS.replication
            assert len(bucket.replacements) <= LIMITS.replication
            for number, entry in bucket.entries.items():
                assert entry.contact.long_id == number
                assert table.get_bucket_for(entry.contact) == bucket.index
                assert entry.strikes < LIMITS.strikes_max
            live = bucket.live
            assert live is None or set(live) == set(bucket.live_ones())
        groups = [entry.contact.group for entry in entries]
        assert all(groups.count(it) <= LIMITS.group_contacts_max for it in groups)
        assert {it: groups.count(it) for it in groups} == dict(table._groups)
        for entry in entries:
            contact = entry.contact
            assert contact.address in by_number, "nobody else ever answered"
            is_seed = by_number[contact.address] >= STRANGERS - SEEDS
            assert is_seed or fits_public(contact.id, contact.packed)

    def _check_store(self, store: Any) -> None:
        assert len(store) <= LIMITS.records_max
        by_source: dict[bytes, list[bytes]] = {}
        for key, held in store._records.items():
            if held.source:
                by_source.setdefault(held.source, []).append(key)
        assert {it: sorted(keys) for it, keys in store._of_source.items()} == {
            it: sorted(keys) for it, keys in by_source.items()
        }
        over = {it for it, keys in by_source.items() if len(keys) > LIMITS.records_per_source}
        assert set(store._over_quota) == over
        for key in self.keys:
            held = store.held(key)
            if held is not None:
                self.check(key, held[1])

    def check(self, key: bytes, data: bytes) -> None:
        """The record is the peer's, and good."""
        record = SignedCommRecord.decode(data)  # verifies
        assert record.peer_id == key
        assert not record.expired(self.host.unix_time())

    # How

    def run(self, act: Coroutine[Any, Any, Any], limit_s: float = CALL_S) -> Any:
        assert self.session is not None
        return self.session.run(act, limit_s=limit_s)

    def teardown(self) -> None:
        if self.session is None:
            return
        with self.world_ends:
            if not self.broken:
                self.all_behave("honest")
                self.run(asyncio.sleep(CALM_S), limit_s=2 * CALM_S)
                self.run(self.host.run(self._serves()))
                self.run(asyncio.sleep(1))

    async def _serves(self) -> None:
        """The node does for somebody new what it is there for."""
        newcomer = self.signed(PEERS, 0, HOUR_S)
        assert (await self.node.publish(newcomer)).stored >= LIMITS.replication // 2
        found = await self.node.resolve(self.peers[PEERS].node_id, fresh=True)
        assert found == newcomer
        await self.node.close()


def test_whatever_strangers_do_to_a_node_it_keeps_its_bounds_and_tells_no_lies() -> None:
    thorough = settings.get_current_profile_name() == "thorough"
    short = settings(max_examples=25, stateful_step_count=30)
    stateful.run_state_machine_as_test(NodeMachine, settings=settings() if thorough else short)
