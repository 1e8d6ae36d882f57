"""Who is given a record after a walk, among neighbours of which each does as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from egtp.errors import LookupFailed, LookupFailure
from egtp.values.comm_record import SignedCommRecord, claims_of
from egtp.values.identity import Identity
from lookup_dht import DHTLimits, DHTLookup
from lookup_dht.state.state_file import NodeState
from lookup_dht.wire.datagram import Method, StoreStatus, decode_query
from tests.lookup_dht.at_hand import Sign, Start

FAR = 1 << 159
LIMITS = DHTLimits(replication=3)


class Neighbours:
    """Neighbours of a key, the first one the closest to it, who all know each other. Each holds a
    record, or None, and notes the sequences that it is given."""

    def __init__(
        self, peers: list[Any], key: bytes, held: list[SignedCommRecord | None], last: int
    ) -> None:
        """``last`` is the distance of the last one."""
        self.peers, self.held = peers, held
        self.given: list[list[int]] = [[] for _ in peers]
        self.known: set[int] = set()
        """The sequences that askers said they know."""
        for number, peer in enumerate(peers):
            peer.id = at_distance(key, number + 1 if number + 1 < len(peers) else last)
            peer.answer = self._answerer(number)

    def _answerer(self, number: int) -> Callable[[bytes], bytes | None]:
        peer = self.peers[number]

        def answer(data: bytes) -> bytes | None:
            query = decode_query(data)
            fields: dict[str, Any] = {"nodes": tuple(it.contact.compact for it in self.peers)}
            record = self.held[number]
            if query.method is Method.STORE:
                self.given[number].append(claims_of(query.record)[1])
                fields = {"status": StoreStatus.STORED}
            elif query.method is Method.FIND_VALUE:
                self.known.add(query.sequence)
                if record is not None:
                    fields["sequence"] = record.sequence
                    if record.sequence > query.sequence:
                        fields["record"] = record.encode()
            elif query.method is Method.PING:
                fields = {}
            return bytes(peer.as_server(data, **fields))

        return answer


def at_distance(key: bytes, distance: int) -> bytes:
    return (int.from_bytes(key, "big") ^ distance).to_bytes(20, "big")


Meet = Callable[..., Awaitable[tuple[DHTLookup, Neighbours]]]


@pytest.fixture
def meet(start: Start, open_raw: Callable[..., Awaitable[Any]], identity: Identity) -> Meet:
    async def meet(
        *held: SignedCommRecord | None, distance: int = FAR, last: int = 0, **options: Any
    ) -> tuple[DHTLookup, Neighbours]:
        """A node at this distance from the key, and neighbours that it knows."""
        key = bytes(identity.node_id)
        peers = [await open_raw(f"127.0.8.{1 + number}") for number in range(len(held))]
        neighbours = Neighbours(peers, key, list(held), last or len(held))
        state = NodeState(at_distance(key, distance), "main", (), ())
        node = await start(state=state, **{"limits": LIMITS, **options})
        for peer in peers:
            node._node.protocol.router.add_contact(peer.contact)
        return node, neighbours

    return meet


async def test_after_a_lookup_the_closest_get_the_record_and_of_the_others_who_held_an_older_one(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    old, new = sign(identity, 5), sign(identity, 6)
    node, neighbours = await meet(new, None, old, None, old, None)
    assert await node.resolve(identity.node_id, fresh=True) == new
    await asyncio.sleep(1)
    assert neighbours.given == [[], [6], [6], [], [6], []]


async def test_a_node_that_is_one_of_the_closest_itself_and_holds_the_record_counts_as_one(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    record = sign(identity, 6)
    node, neighbours = await meet(record, None, None, None, distance=0)
    node._node.storage.put(bytes(identity.node_id), record.encode())
    await node.resolve(identity.node_id, fresh=True)
    await asyncio.sleep(1)
    assert neighbours.given == [[], [6], [], []]


async def test_one_lookup_gives_a_record_to_few(meet: Meet, identity: Identity, sign: Sign) -> None:
    old, new = sign(identity, 5), sign(identity, 6)
    node, neighbours = await meet(new, old, old, old, limits=DHTLimits(repairs_max=2))
    await node.resolve(identity.node_id, fresh=True)
    await asyncio.sleep(1)
    assert sum(map(len, neighbours.given)) == 2


async def test_those_that_always_lack_a_record_do_not_keep_it_from_the_others_that_do(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    """Liars may be the first to answer each time."""
    old, new = sign(identity, 5), sign(identity, 6)
    node, neighbours = await meet(new, old, old, old, old, limits=DHTLimits(repairs_max=2))
    for _ in range(12):
        await node.resolve(identity.node_id, fresh=True)
        await asyncio.sleep(1)
    assert all(neighbours.given[1:])


async def test_a_node_that_finds_a_newer_record_than_its_own_keeps_that_for_others(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    old, new = sign(identity, 5), sign(identity, 6)
    node, _ = await meet(new, None)
    node._node.storage.put(bytes(identity.node_id), old.encode())
    await node.resolve(identity.node_id, fresh=True)
    assert node._node.storage.record(bytes(identity.node_id)) == new


@pytest.mark.parametrize("older", [False, True])
async def test_who_publishes_gives_the_record_to_the_closest_and_to_who_holds_an_older_one(
    meet: Meet, identity: Identity, sign: Sign, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    far = sign(identity, 5) if older else None
    node, neighbours = await meet(None, None, None, None, far, last=FAR + 1)
    monkeypatch.setattr(node._node.walks.size, "radius", lambda *_: 3)
    published = await node.publish(sign(identity, 6))
    assert published.stored == published.asked == 3 + older
    assert neighbours.given == [[6], [6], [6], [], [6] if older else []]


async def test_a_record_that_was_left_alone_is_given_to_who_lacks_it_and_the_others_told(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    now, record = [0.0], sign(identity, 6)
    node, neighbours = await meet(record, None, record, elapsed=lambda: now[0])
    node._node.storage.put(bytes(identity.node_id), record.encode())
    await node._node.walks.look_after_one()
    assert neighbours.known == set()  # It is not due yet.
    now[0] += 8 * 3600
    await node._node.walks.look_after_one()
    await asyncio.sleep(1)
    assert neighbours.given == [[], [6], []]
    assert neighbours.known == {6}  # They need not send it, nor look after it now.


async def test_a_record_that_expires_while_it_is_looked_after_is_given_to_nobody(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    clock, record = [1_000_000.0], sign(identity, 6, expiry=1_000_060)
    node, neighbours = await meet(
        None, None, elapsed=lambda: clock[0], unix_time=lambda: clock[0],
        limits=DHTLimits(care_interval_s=1, care_interval_max_s=1),
    )  # fmt: skip
    node._node.storage.put(bytes(identity.node_id), record.encode())
    clock[0] += 60
    await node._node.walks.look_after_one()
    await asyncio.sleep(1)
    assert neighbours.known == {0}
    assert neighbours.given == [[], []]


@pytest.mark.parametrize(("held", "given"), [(0, [6]), (5, [6]), (6, []), (7, [])])
async def test_a_newcomer_is_given_the_records_that_it_lacks(
    meet: Meet, identity: Identity, sign: Sign, held: int, given: list[int]
) -> None:
    node, neighbours = await meet(sign(identity, held) if held else None)
    node._node.storage.put(bytes(identity.node_id), sign(identity, 6).encode())
    await node._node.walks.hand_over()
    await asyncio.sleep(1)
    assert neighbours.given == [given]


async def test_that_nobody_has_a_record_is_not_concluded_from_a_lookup_that_was_given_up(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    record = sign(identity, 6)
    node, neighbours = await meet(None, record)
    answer, neighbours.peers[1].answer = neighbours.peers[1].answer, None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await node.resolve(identity.node_id)
    neighbours.peers[1].answer = answer
    assert await node.resolve(identity.node_id) == record


async def test_a_lookup_for_which_too_many_queries_are_open_ends_at_once(
    meet: Meet, identity: Identity, sign: Sign
) -> None:
    node, neighbours = await meet(sign(identity, 6), None, limits=DHTLimits(pending_queries_max=4))
    asker, loop = node._node.protocol.asker, asyncio.get_running_loop()
    for number in range(4):
        silent = (f"127.0.7.{1 + number}", 9100)
        asker.ask(silent, asker.query(Method.PING), lambda _: None, None, 2)
    began_at = loop.time()
    with pytest.raises(LookupFailed) as failed:
        await node.resolve(identity.node_id)
    assert failed.value.reason is LookupFailure.NO_RESPONSES
    assert loop.time() == began_at
    assert neighbours.known == set()
    assert node.contacts == 2  # Nobody was asked, so nobody was silent.
    await asyncio.sleep(10)
    assert (await node.resolve(identity.node_id)).sequence == 6
