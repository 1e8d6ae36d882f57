"""Whom a node joins through, at its start and later, and what it keeps for the next one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from egtp import NodeConfig
from egtp.errors import InvalidConfig, LookupFailed, LookupFailure, PublishFailed
from egtp.lookup import Published
from egtp.values.comm_strat import Address
from egtp.values.identity import Identity
from lookup_dht import DHTLimits, DHTLookup, KeptState
from lookup_dht.names import system_names
from lookup_dht.state.state_file import NodeState
from lookup_dht.walks.record_walks import LOOK_PAUSE_S, LOOKED_THROUGH_AT_ONCE
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import Method, Reply, decode_query, encode_reply
from tests.lookup_dht.at_hand import Sign, Start

NOT_RESOLVED = "silent.example.org, wrong.example.org do not resolve"


async def test_a_node_that_lost_everybody_joins_again(
    start: Start, identity: Identity, sign: Sign
) -> None:
    seed = await start()
    node = await start(seed)
    for contact in list(node._node.protocol.router):
        node._node.protocol.router.remove_contact(contact)
    assert node.contacts == 0
    assert (await node.publish(sign(identity, 5))).stored == 1


async def test_the_first_node_of_a_network_holds_its_record_for_those_who_join_later(
    start: Start, identity: Identity, sign: Sign
) -> None:
    first = await start()
    assert await first.publish(sign(identity, 5)) == Published(stored=1, asked=1)
    second = await start(first)
    assert (await second.resolve(identity.node_id)).sequence == 5
    assert await first.publish(sign(identity, 6)) == Published(stored=1, asked=1)
    assert second.statistics()["records"] == 1


async def test_a_node_that_lost_everybody_is_not_taken_for_the_first(
    start: Start, identity: Identity, sign: Sign
) -> None:
    first = await start()
    second = await start(first)
    await second.close()
    for contact in list(first._node.protocol.router):
        first._node.protocol.router.remove_contact(contact)
    with pytest.raises(PublishFailed, match="no node of the network answers"):
        await first.publish(sign(identity, 5))


async def test_a_seed_that_comes_up_later_is_joined_by_upkeep(start: Start) -> None:
    now = [1000.0]
    node = await start("127.0.3.3:9100", elapsed=lambda: now[0])
    assert node.contacts == 0
    await start(listen="127.0.3.3:9100")
    now[0] += 60
    await node._node._refresh_table()
    assert node.contacts == 1


async def test_who_was_lost_for_long_and_is_lost_again_tries_as_soon_as_the_first_time(
    start: Start,
) -> None:
    node = await start("127.0.3.3:9100")
    joining, soon_s = node._node.joining, DHTLimits().rejoin_delay_min_s
    await asyncio.sleep(3600)
    assert joining.retry_s == DHTLimits().upkeep_interval_s
    await start(listen="127.0.3.3:9100")
    await asyncio.sleep(120)
    assert node.contacts == 1
    assert joining.retry_s == soon_s


async def test_a_start_waits_for_a_seed_that_answers_late(start: Start, open_raw: Any) -> None:
    seed = await open_raw()
    loop = asyncio.get_running_loop()

    def late(data: bytes) -> None:
        address = ("127.0.0.1", node_port)
        loop.call_later(1.0, seed.transport.sendto, seed.as_server(data), address)

    node_port = 9234
    seed.answer = late
    host, port = seed.address
    node = await start(f"{host}:{port}", listen=f"127.0.0.1:{node_port}")
    assert node.contacts == 1


async def test_nodes_that_are_gone_are_greeted_in_turn_and_none_twice_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start()
    joining, gone = node._node.joining, [(f"127.0.9.{number}", 9100) for number in range(5)]
    greeted: list[tuple[str, int]] = []

    async def met(address: tuple[str, int]) -> bool:
        greeted.append(address)
        return False

    monkeypatch.setattr(joining, "_met", met)
    node._node.protocol.acquaintances.seeds = dict.fromkeys(gone)
    for _ in range(5):
        await joining.greet_lost_ones(2)
    assert greeted == gone + gone
    greeted.clear()
    await joining.greet_lost_ones(9)
    assert sorted(greeted) == gone


async def test_a_node_whose_machine_slept_joins_again_when_it_wakes(start: Start) -> None:
    slept_s = 0.0
    loop = asyncio.get_running_loop()
    seed = await start()
    node = await start(seed, elapsed=lambda: loop.time() + slept_s)
    interval_s = DHTLimits().upkeep_interval_s
    await asyncio.sleep(2 * interval_s)
    assert node.counters["overslept"] == 0
    found = node._node.joining.join
    joins: list[float] = []

    async def join() -> list[Contact]:
        joins.append(loop.time())
        return await found()

    node._node.joining.join = join  # type: ignore[assignment, method-assign]
    slept_s = 11 * interval_s
    await asyncio.sleep(2 * interval_s)
    assert (len(joins), node.counters["overslept"]) == (1, 1)


async def test_a_record_that_has_expired_is_dropped_though_nobody_asks_for_it(
    start: Start, identity: Identity, sign: Sign
) -> None:
    loop = asyncio.get_running_loop()
    began = 1_700_000_000 - loop.time()
    one = await start(unix_time=lambda: began + loop.time())
    two = await start(one, unix_time=lambda: began + loop.time())
    await one.publish(sign(identity, 5, expiry=int(began + loop.time()) + 900))
    assert two.statistics()["records"] == 1
    await asyncio.sleep(900 + 2 * DHTLimits().upkeep_interval_s)
    assert two.statistics()["records"] == 0


async def test_a_node_takes_an_id_that_fits_the_address_it_is_seen_at(start: Start) -> None:
    node = await start()
    other = await start(node)
    before = node.node_id
    router = node._node.protocol.router
    for voter in (b"\x08\x08\x08\x08", b"\x09\x09\x09\x09"):
        contact = Contact(bytes([voter[0]]) * 20, voter, 9100)
        router.add_contact(contact)
        router.is_seen(contact, b"\x5d\xb8\xd8\x22")
    await node._node._refresh_table()
    assert node.node_id != before
    assert node._node.storage.center == node.node_id == node._node.protocol.source_node.id
    assert node.contacts == 3
    await other._node.protocol.call_ping(next(iter(other._node.protocol.router)))
    assert [it.id for it in other._node.protocol.router] == [node.node_id]


async def test_the_first_contacts_are_kept_soon_though_the_node_met_them_long_after_its_start(
    start: Start, tmp_path: Path
) -> None:
    """Not only after a minute: an app on a phone may be killed before."""
    node, kept = await start("127.0.3.3:9100"), KeptState(tmp_path / "dht", pytest.fail)
    async with kept.of(node):
        await asyncio.sleep(200)
        seed = await start(listen="127.0.3.3:9100")
        while not node.contacts:  # The first call may share a run that has missed the seed.
            await node._node.bootstrap()
        await asyncio.sleep(10)
        state = kept.read()
        assert state is not None
        assert [contact.address for contact in state.contacts] == [seed._node.bound]


async def test_a_state_that_no_thread_could_be_started_for_is_written_a_minute_later(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_thread(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    said: list[str] = []
    path = tmp_path / "dht"
    node, kept = await start(), KeptState(path, said.append)
    async with kept.of(node):
        path.unlink()
        with monkeypatch.context() as scarce:
            scarce.setattr(asyncio, "to_thread", no_thread)
            await asyncio.sleep(61)
        (told,) = said
        assert told.startswith(f"cannot write the state file {path}: can't start new thread; ")
        await asyncio.sleep(60)
        assert kept.read() is not None


async def test_the_state_of_a_run_is_where_the_next_one_begins(
    start: Start, identity: Identity, sign: Sign
) -> None:
    seed, old = await start(), await start()
    await old._node.bootstrap([seed._node.bound])
    old._node.storage.put(identity.node_id, sign(identity, 5).encode())
    dead = Contact(bytes(20), b"\x7f\x00\x03\x09", 9)
    forged = (os.urandom(20), sign(identity, 5).encode())
    state = NodeState(
        old.state.node_id, "main", (*old.state.contacts, dead), (*old.state.records, forged)
    )
    await old.close()
    new = await start(state=NodeState.decode(state.encode()))
    assert new.node_id == old.node_id
    assert [it.address for it in new._node.protocol.router] == [seed._node.bound]
    assert dead in new.state.contacts  # It may be back at the next start.
    assert [key for key, _ in new.state.records] == [identity.node_id]
    with pytest.raises(InvalidConfig, match="network"):
        DHTLookup(network="lab", state=state)


async def test_contacts_that_an_option_forbids_are_kept_for_a_later_run_and_told_of(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    seed, old = await start(), await start()
    await old._node.bootstrap([seed._node.bound])
    sixth = Contact(bytes(20), b"\x2a" + bytes(14) + b"\x02", 9)
    nowhere = Contact(bytes(20), b"\xe0\x00\x00\x01", 9)
    state = NodeState(old.node_id, "main", (*old.state.contacts, sixth, nowhere))
    await old.close()
    strict = await start(state=state, private_addresses=False)
    assert strict.contacts == 0
    assert set(strict.state.contacts) == {*old.state.contacts, sixth}
    private, other = [it.getMessage() for it in caplog.records]
    assert private.startswith("1 of the DHT contacts of an earlier run are kept, but not used: ")
    assert "allow private addresses" in private
    assert "a node that listens on 127.0.0.1:0 cannot reach them" in other
    lab = await start(state=strict.state)
    assert lab.contacts == 1
    assert sixth in lab.state.contacts


async def test_what_is_kept_without_being_used_has_a_bound(start: Start) -> None:
    many = tuple(Contact(bytes(20), b"\x0a\x01\x01\x01", port) for port in range(1, 2000))
    node = await start(state=NodeState(b"", "main", many), private_addresses=False)
    assert node.state.contacts == many[:256]


async def test_of_many_contacts_those_are_greeted_that_the_last_run_had_in_its_table(
    start: Start,
) -> None:
    node = await start()
    table = [Contact(bytes(20), b"\x7f\x01\x01\x01", port) for port in range(1, 65)]
    former = [Contact(bytes(20), b"\x7f\x01\x01\x02", port) for port in range(1, 65)]
    node._restore_contacts([*table, *former])
    assert set(node._node.protocol.router.former.values()) == set(table)


async def test_a_node_that_has_only_begun_to_join_can_be_asked_and_keeps_what_it_knew(
    start: Start, identity: Identity, sign: Sign
) -> None:
    other = await start()
    await (await start(other)).publish(sign(identity, 5))
    known = Contact(other.node_id, b"\x7f\x00\x00\x01", other.address.port)
    node = DHTLookup(private_addresses=True, state=NodeState(bytes(20), "main", (known,)))
    joining = await node.begin()
    assert node.state.contacts == (known,)
    assert (await node.resolve(identity.node_id)).sequence == 5
    await node.close()
    assert joining.done()


async def test_a_contact_whose_id_does_not_fit_any_more_is_greeted_at_its_address(
    start: Start,
) -> None:
    """As the first node of a network, whose id was another before it knew its address."""
    node = await start()
    known = Contact(bytes(20), b"\x08\x08\x08\x08", 9)
    node._restore_contacts([known])
    assert list(node._node.protocol.router.former) == [known.address]


async def test_a_node_joins_through_another_by_its_name() -> None:
    async with DHTLookup(private_addresses=True) as one:
        port = one.address.port
        async with DHTLookup(bootstrap=[f"localhost:{port}"], private_addresses=True) as two:
            assert two.statistics()["contacts"] == 1
            assert two.address.host == "127.0.0.1"


async def test_an_address_that_a_name_stands_for_twice_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def twice(name: str, port: int, **_: object) -> list[tuple[object, ...]]:
        address: tuple[object, ...] = (None, None, 0, "", ("192.0.2.1", port))
        return [address, address]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", twice)
    resolve = system_names(Address.parse("0.0.0.0:0"))
    assert await resolve("example.com", 9) == [("192.0.2.1", 9)]


async def test_of_a_name_that_stands_for_many_addresses_those_of_nodes_are_greeted() -> None:
    async def resolve(_: str, port: int) -> list[tuple[str, int]]:
        return [("224.0.0.1", port), ("no address", port), ("127.0.0.1", port)]

    async with DHTLookup(private_addresses=True) as one:
        seed = f"dht.example.org:{one.address.port}"
        options: Any = {"private_addresses": True, "resolve_name": resolve}
        async with DHTLookup("127.0.0.1:0", seed, **options) as two:
            assert two.contacts == 1
            assert two.counters["seed_address_refused"] == 2


@pytest.mark.parametrize("good", ["127.0.0.1", "good.example.org"])
async def test_a_name_that_takes_for_ever_to_resolve_holds_up_no_other_way_to_join(
    good: str,
) -> None:
    asked: list[str] = []

    async def resolve(name: str, port: int) -> list[tuple[str, int]]:
        asked.append(name)
        if name == "silent.example.org":
            await asyncio.Event().wait()
        return [("127.0.0.1", port)]

    async with DHTLookup(private_addresses=True) as one:
        seeds = [f"{name}:{one.address.port}" for name in ("silent.example.org", good)]
        options: Any = {"private_addresses": True, "resolve_name": resolve}
        two = DHTLookup("127.0.0.1:0", seeds, **options)
        async with asyncio.timeout(5), two:
            assert two.contacts == 1
            await two._node.bootstrap()
            assert asked.count("silent.example.org") == 1, "it is still waited for"


async def test_if_no_name_resolves_a_start_and_a_lookup_soon_go_on_and_the_lookup_says_why(
    start: Start, sign: Sign, identity: Identity
) -> None:
    async def resolve(name: str, port: int) -> list[tuple[str, int]]:
        if name == "silent.example.org":
            await asyncio.Event().wait()
        raise OSError("no such name")

    async with asyncio.timeout(NodeConfig().lookup_timeout_s):
        node = await start("silent.example.org:1", "wrong.example.org:1", resolve_name=resolve)
        with pytest.raises(LookupFailed, match=NOT_RESOLVED) as failed:
            await node.resolve(identity.node_id)
        assert failed.value.reason is LookupFailure.NO_NODES
        with pytest.raises(PublishFailed, match=f"no node of the network answers: {NOT_RESOLVED}"):
            await node.publish(sign(identity, 1))


async def test_a_name_that_resolves_at_last_is_joined_through_though_nobody_waits_any_more(
    start: Start,
) -> None:
    slow, one = asyncio.Event(), await start()

    async def resolve(_: str, port: int) -> list[tuple[str, int]]:
        await slow.wait()
        return [("127.0.0.1", port)]

    async with asyncio.timeout(NodeConfig().lookup_timeout_s):
        node = await start(f"slow.example.org:{one.address.port}", resolve_name=resolve)
    assert node.contacts == 0
    slow.set()
    await asyncio.sleep(1)
    assert node.contacts == 1
    assert not node._node.joining.seeds.unresolved


async def test_a_name_that_does_not_resolve_is_told_of_in_the_log_once(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    node = await start("wrong.example.org:1")
    await node._node.bootstrap()
    assert node.counters["seed_name_not_resolved"] == 2
    (told,) = (record.getMessage() for record in caplog.records)
    assert told.startswith("wrong.example.org does not resolve to an IPv4 address: ")


async def test_a_name_that_does_not_resolve_any_more_keeps_what_it_stood_for(start: Start) -> None:
    found: list[list[tuple[str, int]]] = []

    async def resolve(_: str, port: int) -> list[tuple[str, int]]:
        if not found:
            raise OSError("the name server is down")
        return found.pop()

    one, other = await start(), await start()
    found.append([one._node.bound])
    node = await start("dht.example.org:1", f"127.0.0.1:{other.address.port}", resolve_name=resolve)
    seeds = node._node.protocol.acquaintances.seeds
    assert set(seeds) == {one._node.bound, other._node.bound}
    await node._node.bootstrap()
    assert node.counters["seed_name_not_resolved"] == 1
    assert node._node.protocol.acquaintances.seeds == seeds


async def test_a_node_that_is_no_server_or_answers_another_question_is_no_contact(
    start: Start, open_raw: Callable[..., Awaitable[Any]]
) -> None:
    node, client, parrot = await start(), await open_raw(), await open_raw()
    client.answer = lambda data: client.as_server(data, server=False)
    await node._node.protocol.call_ping(client.contact)

    def another_method(data: bytes) -> bytes:
        reply = Reply(Method.STORE, "main", parrot.id, True, bytes(6))
        return encode_reply(data[1:21], reply, 1200) or b""

    parrot.answer = another_method
    assert await node._node.protocol.call_ping(parrot.contact) == (False, None)
    assert node.counters["reply_of_another_method"] == 2
    assert node.contacts == 0


async def test_a_newcomer_does_not_keep_the_loop_from_others_however_many_records_there_are(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await start(limits=DHTLimits(hand_over_max=5000))
    server, newcomer = node._node, Contact(bytes(20), b"\x7f\x00\x00\x02", 9100)
    keys = [hashlib.sha256(b"%d" % number).digest()[:20] for number in range(5000)]
    monkeypatch.setattr(server.storage, "keys", lambda: keys)
    server.protocol.router.add_contact(newcomer)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    await server.walks._due_to(newcomer)
    assert loop.time() - began_at >= 5000 / LOOKED_THROUGH_AT_ONCE * LOOK_PAUSE_S


async def test_a_newcomer_that_does_not_answer_is_offered_few_records(
    start: Start, sign: Sign, open_raw: Callable[..., Awaitable[Any]]
) -> None:
    node, silent = await start(), await open_raw()
    server = node._node
    # Closer to all of them than the node itself.
    far = bytes(byte ^ 0xFF for byte in node.node_id)
    silent.id = far
    randbytes = random.Random(1).randbytes
    peers: list[Identity] = []
    while len(peers) < 30:
        peer = Identity.generate(randbytes)
        if bytes(peer.node_id)[0] >> 7 == far[0] >> 7:
            peers.append(peer)
            server.storage.put(bytes(peer.node_id), sign(peer, 5).encode())
    server.protocol.router.add_contact(silent.contact)
    await server.walks.hand_over()
    queries = [
        decode_query(silent.received.get_nowait()[0]) for _ in range(silent.received.qsize())
    ]
    asked = {query.key for query in queries if query.method is Method.FIND_VALUE}
    limits = DHTLimits()
    # Each that is left unanswered makes room for one more, until that is one too many.
    assert 0 < len(asked) < limits.parallel_queries + limits.strikes_max
