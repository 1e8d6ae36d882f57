"""Storing a record on many nodes: who is asked again, what is counted, and when it is enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.protocol.asking import Ended
from lookup_dht.protocol.kademlia_protocol import LookupProtocol
from lookup_dht.protocol.open_queries import OpenQuery
from lookup_dht.settings import DHTLimits
from lookup_dht.walks.store_round import StoreRound
from lookup_dht.wire.contact import Contact
from lookup_dht.wire.datagram import Method, Query, Reply, StoreStatus
from simulations.virtual import Network, run_in

KEY, RECORD = bytes(range(20)), b"a record"
LIMITS = DHTLimits(replication=4, soft_timeout_min_s=0.125)
STORED, NEWER_HELD, REFUSED, TOKEN = StoreStatus


def contact(number: int) -> Contact:
    return Contact(number.to_bytes(20, "big"), bytes([8, 1, 1, number]), 9100)


class Nodes:
    """Stand where the protocol is: they note what they are asked, and answer when told to."""

    def __init__(self, queries_max: int = 100) -> None:
        self.asker = self
        self.asked: list[tuple[Contact, bytes]] = []
        """With which token."""
        self.open: dict[Contact, OpenQuery] = {}
        self.answer_by: Callable[[Contact], None] = lambda _: None
        self._queries_max = queries_max

    def ask(
        self,
        contact: Contact,
        method: Method,
        ended: Ended,
        *,
        key: bytes,
        record: bytes,
        token: bytes,
    ) -> OpenQuery | None:
        assert (method, key, record) == (Method.STORE, KEY, RECORD)
        if len(self.open) >= self._queries_max:
            return None
        query = Query(method, "main", bytes(20), True, key, record, token)
        self.asked.append((contact, token))
        self.open[contact] = OpenQuery(bytes(20), contact.address, contact, query, b"", ended, 2)
        self.answer_by(contact)
        return self.open[contact]

    def forget(self, query: OpenQuery) -> None:
        assert query.contact is not None
        assert self.open.pop(query.contact) is query

    def answer(self, contact: Contact, status: StoreStatus | None, token: bytes = b"") -> None:
        """With None: there was no answer."""
        reply = None
        if status is not None:
            reply = Reply(Method.STORE, "main", contact.id, True, bytes(6), (), b"", status, token)
        self.open.pop(contact).ended(reply)


def in_time(story: Coroutine[Any, Any, None]) -> None:
    run_in(Network(1), story, limit_s=1000)


def round_on(nodes: Nodes) -> StoreRound:
    return StoreRound(cast("LookupProtocol", nodes), KEY, RECORD, LIMITS)


def begun(store_round: StoreRound, count: int) -> asyncio.Task[None]:
    asked = [(contact(number), b"token %d" % number) for number in range(count)]
    return asyncio.create_task(store_round.run(asked))


behaviour = st.tuples(
    st.integers(1, 16),
    st.sampled_from([STORED, NEWER_HELD, REFUSED, TOKEN, None]),
)
"""After how many eighths of a second it answers what."""


@given(st.lists(st.tuples(behaviour, behaviour), max_size=10))
def test_each_is_asked_at_most_twice_and_half_are_waited_for_and_then_as_long_again(
    behaviours: list[tuple[tuple[int, StoreStatus | None], tuple[int, StoreStatus | None]]],
) -> None:
    final: list[tuple[float, StoreStatus | None]] = []
    asked: list[tuple[Contact, bytes]] = []
    for number, (first, second) in enumerate(behaviours):
        once = first[1] not in (TOKEN, None)
        final.append((first[0] / 8, first[1]) if once else ((first[0] + second[0]) / 8, second[1]))
        asked.append((contact(number), b"token %d" % number))
        if not once:
            token = b"token %d" % number if first[1] is None else b"another"
            asked.append((contact(number), token))
    all_at = max((at for at, _ in final), default=0.0)
    stored_at = sorted(at for at, status in final if status is STORED)
    enough = (min(4, len(behaviours)) + 1) // 2
    over_at = all_at
    if 0 < enough <= len(stored_at):
        half_at = stored_at[enough - 1]
        over_at = min(all_at, half_at + max(half_at, 0.125))

    async def story() -> None:
        nodes, loop = Nodes(), asyncio.get_running_loop()
        to_come = {contact(number): iter(each) for number, each in enumerate(behaviours)}

        def answer_by(node: Contact) -> None:
            eighths, status = next(to_come[node])
            loop.call_later(eighths / 8, nodes.answer, node, status, b"another")

        nodes.answer_by = answer_by
        store_round, began_at = round_on(nodes), loop.time()
        await begun(store_round, len(behaviours))
        assert loop.time() - began_at == pytest.approx(over_at)
        await asyncio.sleep(10)
        # Those that were not waited for count too.
        assert sorted(nodes.asked, key=lambda it: it[0].id) == asked
        stored = [contact(number) for number, it in enumerate(final) if it[1] is STORED]
        assert sorted(store_round.stored_by, key=lambda it: it.id) == stored
        assert store_round.newer_held == sum(status is NEWER_HELD for _, status in final)
        assert store_round.refused == sum(status is REFUSED for _, status in final)

    in_time(story())


def test_of_many_nodes_half_the_replication_is_enough() -> None:
    async def story() -> None:
        nodes = Nodes()
        store_round = round_on(nodes)
        task = begun(store_round, 10)
        await asyncio.sleep(1)
        nodes.answer(contact(0), STORED)
        await asyncio.sleep(100)
        assert not task.done()
        nodes.answer(contact(1), STORED)
        await asyncio.sleep(100)
        assert not task.done()
        await asyncio.sleep(2)
        assert task.done()

    in_time(story())


def test_those_that_answer_at_once_leave_the_others_a_little_time() -> None:
    async def story() -> None:
        nodes, loop = Nodes(), asyncio.get_running_loop()
        task, began_at = begun(round_on(nodes), 2), loop.time()
        await asyncio.sleep(0)
        nodes.answer(contact(0), STORED)
        await task
        assert loop.time() - began_at == pytest.approx(LIMITS.soft_timeout_min_s)

    in_time(story())


def test_who_cannot_be_asked_since_too_many_queries_are_open_is_not_waited_for() -> None:
    async def story() -> None:
        nodes = Nodes(queries_max=1)
        store_round = round_on(nodes)
        task = begun(store_round, 3)
        await asyncio.sleep(0)
        nodes.answer(contact(0), REFUSED)
        await asyncio.wait_for(task, 0.001)
        assert (nodes.asked, store_round.refused) == ([(contact(0), b"token 0")], 1)

    in_time(story())


@pytest.mark.reaches_in
@pytest.mark.parametrize("stored", [0, 2])
def test_cancelling_it_takes_back_every_query_before_half_have_stored_and_after(
    stored: int,
) -> None:
    async def story() -> None:
        nodes = Nodes()
        task = begun(round_on(nodes), 4)
        await asyncio.sleep(1)
        for number in range(stored):
            nodes.answer(contact(number), STORED)
        await asyncio.sleep(0.5)
        assert len(nodes.open) == 4 - stored
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert nodes.open == {}

    in_time(story())
