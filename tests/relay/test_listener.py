"""A relay listener in virtual time, at a relay that is not there."""

from __future__ import annotations

import asyncio
from collections import Counter

from egtp.discovery_service import Introduction
from egtp.errors import FastFail
from egtp.relay.listener import RETRY_MAX_S, RelayListener
from egtp.values.identity import NodeId
from simulations.virtual import Network, run_in

ME = NodeId(bytes(20))
RELAY = NodeId(bytes([1]) * 20)
DAY_S = 24 * 3600.0


class Host:
    """A node that reaches nobody."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask_directly(
        self, peer_id: NodeId, kind: str, body: bytes, timeout_s: float
    ) -> bytes:
        self.asked += 1
        raise FastFail("nobody is there")

    def meet(self, introduction: Introduction) -> None:
        pass

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def leases_changed(self) -> None:
        pass


def test_a_relay_that_is_gone_for_a_day_is_asked_once_a_minute_to_the_end() -> None:
    host = Host()

    async def story() -> None:
        listener = RelayListener(host, ME, 1, 60.0, Counter())
        listener.introduce([Introduction(RELAY)])
        await asyncio.sleep(DAY_S)
        await listener.close()

    run_in(Network(1), story())
    once_a_minute = DAY_S / RETRY_MAX_S
    assert once_a_minute <= host.asked <= once_a_minute + 10
