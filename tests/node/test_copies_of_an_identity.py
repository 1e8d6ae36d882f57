"""An identity that runs on two machines, as when one is an image of the other: who runs them is
told."""

from __future__ import annotations

import asyncio
import logging
import os

import pytest

from egtp import Identity, Node
from egtp.events import Event, IdentityRunsElsewhere
from egtp.reaching.peer import Explanation
from tests.lab import Lab, in_lab
from tests.node.at_hand import Start

HOUR_S = 3600.0


def told(events: list[Event]) -> list[IdentityRunsElsewhere]:
    return [event for event in events if isinstance(event, IdentityRunsElsewhere)]


def test_both_are_told_within_half_the_life_of_a_record_and_once_an_hour() -> None:
    async def story(lab: Lab) -> None:
        who, observers = Identity.generate(lab.host().entropy), (list[Event](), list[Event]())
        nodes = []
        for events in observers:
            nodes.append(await lab.node(identity=who, observer=events.append))
            await asyncio.sleep(60)
        assert not any(map(told, observers)), "so far it may have been a restart"
        await asyncio.sleep(HOUR_S + 60)
        assert [len(told(events)) for events in observers] == [1, 1]
        for node, events in zip(nodes, observers, strict=True):
            record = told(events)[0].record
            assert record.peer_id == who.node_id
            assert record.incarnation not in {None, node.record.incarnation}
        await asyncio.sleep(10 * HOUR_S)
        assert all(5 <= len(told(events)) <= 11 for events in observers)

    in_lab(Lab, story)


def test_who_is_started_again_and_alone_is_told_of_no_copy() -> None:
    async def story(lab: Lab) -> None:
        who, events = Identity.generate(lab.host().entropy), list[Event]()
        for _ in range(3):
            node = await lab.node(identity=who, observer=events.append)
            await asyncio.sleep(5 * HOUR_S)
            lab.hosts.pop(node).crash()
        assert told(events) == []

    in_lab(Lab, story)


async def test_without_an_observer_it_is_logged(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    who = Identity.generate(os.urandom)
    first, second = await start(who), await start(who)
    with caplog.at_level(logging.WARNING, "egtp"):
        for one, other in ((first, second), (second, first), (first, second)):
            one.add_contact(other.record)
    assert [it.getMessage() for it in caplog.records] == [
        f"a copy of the identity of {who.node_id} is, or was, in use elsewhere: it signed record "
        f"{record}; each machine needs an identity of its own"
        for record in (second.record.sequence - 2, second.record.sequence - 1)
    ]


def test_others_see_it_in_their_records_once_they_are_signed_by_turns() -> None:
    async def story(lab: Lab) -> None:
        who, asker = Identity.generate(lab.host().entropy), await lab.node()

        def explained(node: Node) -> Explanation:
            asker.add_contact(node.record)
            return asker.why(who.node_id)

        first = await lab.node(identity=who)
        explained(first)
        second = await lab.node(identity=who)
        assert not explained(second).runs_twice, "it may have been started again"
        await asyncio.sleep(60)
        await lab.hosts[first].run(first.listen(f"{lab.hosts[first].addresses[0]}:4001"))
        why = explained(first)
        assert why.runs_twice
        assert "a copy of its identity is in use" in str(why)

    in_lab(Lab, story)
