"""Machines that have IPv4, IPv6, or both."""

from __future__ import annotations

import pytest

from tests.lab import Lab, in_lab


@pytest.mark.parametrize("addresses", [("5.2.0.1", "2a02::1"), ("2a02::1", "5.2.0.1")])
def test_peers_without_a_common_version_of_ip_meet_at_a_relay_that_has_both(
    addresses: tuple[str, str],
) -> None:
    async def story(lab: Lab) -> None:
        both = lab.network.host("both", "5.1.0.1", "2a01::1")
        there, here = (
            lab.network.host(name, address)
            for name, address in zip(("peer", "asker"), addresses, strict=True)
        )
        relay = await lab.node(on=both, relay_server=True)
        await both.run(relay.listen(["5.1.0.1:4000", "[2a01::1]:4000"]))
        lab.records[relay] = relay.record
        peer = await lab.hidden(relay, on=there)
        asker = await lab.asker(peer, on=here)
        assert await lab.query(asker, peer.node_id) == b"x"
        assert asker.why(peer.node_id).paths == (f"relay {relay.node_id}",)

    in_lab(Lab, story)


def test_of_a_relay_with_many_addresses_of_one_version_those_of_the_other_are_named_too() -> None:
    """A record has room for three of its addresses."""
    six, four = [f"2a01::{number}" for number in range(1, 5)], "5.1.0.1"
    addresses = [*(f"[{one}]:4000" for one in six), f"{four}:4000"]

    async def story(lab: Lab) -> None:
        host = lab.network.host("relay", *six, four)
        relay = await lab.node(on=host, listens=False, relay_server=True)
        await host.run(relay.listen(addresses))
        lab.records[relay] = relay.record
        peer = await lab.hidden(relay)
        asker = await lab.asker(peer)
        (way,) = peer.record.relays
        assert [str(one) for one in way.hints] == [addresses[0], addresses[4], addresses[1]]
        assert await lab.query(asker, peer.node_id) == b"x"

    in_lab(Lab, story)
