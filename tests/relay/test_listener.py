"""A relay listener in virtual time, at a relay that is not there."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

import pytest

from egtp.discovery_service import Introduction
from egtp.errors import FastFail, FastFailReason, NodeClosed
from egtp.events import Event, LeaseNotGranted
from egtp.relay.listener import RETRY_MAX_S, RelayListener
from egtp.relay.wire import encode_lease
from egtp.values.identity import NodeId
from simulations.virtual import Network, run_in

ME = NodeId(bytes(20))
RELAY = NodeId(bytes([1]) * 20)
DAY_S = 24 * 3600.0


class Host:
    """A node that reaches nobody, but in those moments in which the relay is there."""

    def __init__(self) -> None:
        self.asked = 0
        self.grants = False

    async def ask_directly(
        self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
    ) -> bytes:
        self.asked += 1
        if not self.grants:
            raise FastFail("nobody is there")
        return body

    def meet(self, introduction: Introduction) -> None:
        pass

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def leases_changed(self) -> None:
        pass


def test_a_relay_that_is_gone_for_a_day_is_asked_about_once_a_minute_to_the_end() -> None:
    host = Host()

    async def story() -> None:
        listener = RelayListener(host, ME, 1, 60.0, Counter(), None)
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(DAY_S)
        await listener.close()

    run_in(Network(1), story())
    once_a_minute = DAY_S / RETRY_MAX_S
    assert once_a_minute <= host.asked <= 1.5 * once_a_minute


def test_the_clients_of_a_relay_that_is_back_do_not_come_all_at_once() -> None:
    """They lost it at the same moment; it cannot shake hands with thousands in a second."""
    hosts = [Host() for _ in range(100)]
    came: list[float] = []

    async def story() -> None:
        listeners = [
            RelayListener(host, NodeId(bytes([number + 2]) * 20), 1, 60.0, Counter(), None)
            for number, host in enumerate(hosts)
        ]
        for listener in listeners:
            listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(600)
        before = [host.asked for host in hosts]
        for _ in range(60):
            await asyncio.sleep(1)
            came.append(sum(host.asked > was for host, was in zip(hosts, before, strict=True)))
        for listener in listeners:
            await listener.close()

    run_in(Network(1), story())
    assert came[-1] == 100
    assert max(now - was for was, now in pairwise(came)) <= 10


def test_a_relay_that_grants_a_lease_for_a_century_is_asked_as_often_as_others() -> None:
    class Generous(Host):
        async def ask_directly(
            self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
        ) -> bytes:
            self.asked += 1
            return encode_lease(2**32 - 1)

    host = Generous()

    async def story() -> None:
        listener = RelayListener(host, ME, 1, 60.0, Counter(), None)
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(601)
        await listener.close()

    run_in(Network(1), story())
    assert host.asked == 31


def test_a_relay_that_grants_no_lease_is_told_of_once_until_it_has_granted_one() -> None:
    host, told = Host(), list[Event]()

    async def story() -> None:
        listener = RelayListener(host, ME, 1, 60.0, Counter(), told.append)
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(200)
        (event,) = told
        assert isinstance(event, LeaseNotGranted)
        assert (event.relay_id, event.reason) == (RELAY, "nobody is there")
        assert 0.5 <= event.again_s <= 1
        host.grants = True
        await asyncio.sleep(200)
        assert listener.confirmed == (RELAY,)
        host.grants = False
        await asyncio.sleep(200)
        assert told[1:] == told[:1]
        await listener.close()

    run_in(Network(1), story())


def test_without_an_observer_it_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        listener = RelayListener(Host(), ME, 1, 60.0, Counter(), None)
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(200)
        await listener.close()

    run_in(Network(1), story())
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"relay {RELAY} grants no lease: nobody is there; still trying"


@pytest.mark.parametrize(
    "end", [NodeClosed(), FastFail("this node is closed", reason=FastFailReason.CLOSED)]
)
def test_the_end_of_its_own_node_is_no_fault_of_the_relay(
    end: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Closing(Host):
        async def ask_directly(
            self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
        ) -> bytes:
            self.asked += 1
            raise end

    host, counters = Closing(), Counter[str]()

    async def story() -> None:
        listener = RelayListener(host, ME, 1, 60.0, counters, None)
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(200)
        await listener.close()

    run_in(Network(1), story())
    assert (host.asked, counters, caplog.records) == (1, {}, [])


def test_a_relay_that_hangs_up_at_once_after_it_had_not_for_long_is_soon_left_alone() -> None:
    """At first it may have restarted, and then this node may have moved."""

    class Hanging(Host):
        async def ask_directly(
            self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
        ) -> bytes:
            asked_at.append(self.now())
            held_s = 10.0 if len(asked_at) == 1 else 0.125
            asyncio.get_running_loop().call_later(held_s, listener.connection_lost, RELAY)
            return body

    asked_at: list[float] = []
    listener = RelayListener(Hanging(), ME, 1, 600.0, Counter(), None)

    async def story() -> None:
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(200)
        await listener.close()

    run_in(Network(1), story())
    pauses = [later - sooner for sooner, later in pairwise(asked_at)]
    assert pauses[:2] == pytest.approx([10, 0.125])
    assert all(pause >= 0.5 for pause in pauses[2:])
    assert len(pauses) <= 12


def test_short_leases_of_a_relay_that_was_not_there_at_first_are_renewed() -> None:
    host, counters = Host(), Counter[str]()

    async def story() -> None:
        listener = RelayListener(host, ME, 1, 6.0, counters, None)
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(1)
        host.grants = True
        await asyncio.sleep(20)
        assert listener.confirmed == (RELAY,)
        await listener.close()

    run_in(Network(1), story())
    assert set(counters) == {"relay lease failed: FastFail"}
