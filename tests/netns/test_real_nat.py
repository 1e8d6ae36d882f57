"""The programs, as separate processes behind the Linux kernel's own NATs and firewalls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simulations.netns import NatKind

BODY = "x" * 20_000


def test_peers_behind_two_kinds_of_nat_reach_each_other_through_their_relay(
    shared_world: Any, tmp_path: Path
) -> None:
    world, internet = shared_world, shared_world.internet
    relay, relay_id = world.machines[0], world.relay_ids[0]
    home = internet.site("home", "5.3.0.2", NatKind.PORT_RESTRICTED)
    office = internet.site("office", "5.4.0.2", NatKind.SYMMETRIC)
    machines = [home.host("peer", "192.168.1.2"), office.host("peer", "192.168.1.3")]
    through = [
        (one, other)
        for site in (home, office)
        for one, other in ((site.gateway, relay), (relay, site.gateway))
    ]
    around = [(home.gateway, office.gateway), (office.gateway, home.gateway)]
    echoes = [world.echo(machine, tmp_path, relays=1) for machine in machines]
    for _, program in echoes:
        program.line(f"relay {relay_id}")
    for asker, (peer_id, _) in zip(machines, reversed(echoes), strict=True):
        before = [internet.tcp_bytes(*hop) for hop in (*through, *around)]
        assert world.ask(asker, peer_id, BODY) == f"relay {relay_id}"
        after = [internet.tcp_bytes(*hop) for hop in (*through, *around)]
        crossed = [now - was for now, was in zip(after, before, strict=True)]
        assert all(count > len(BODY) for count in crossed[:4]), crossed
        assert crossed[4:] == [0, 0]


def test_the_private_address_of_a_peer_may_be_somebody_elses_in_the_askers_network(
    shared_world: Any, tmp_path: Path
) -> None:
    world, internet = shared_world, shared_world.internet
    here, there = internet.site("here", "5.5.0.2"), internet.site("there", "5.6.0.2")
    machines = [there.host("peer", "192.168.1.2"), here.host("other", "192.168.1.2")]
    (peer_id, _), _ = echoes = [
        world.echo(machine, tmp_path, "--listen", "0.0.0.0:4000", relays=1) for machine in machines
    ]
    for _, program in echoes:
        assert "tcp 192.168.1.2:4000" in program.line(f"relay {world.relay_ids[0]}")
    asker = here.host("asker", "192.168.1.3")
    assert world.ask(asker, peer_id) == f"relay {world.relay_ids[0]}"


def test_a_public_machine_behind_a_firewall_that_says_nothing_is_reached_through_its_relay(
    shared_world: Any, tmp_path: Path
) -> None:
    world, internet = shared_world, shared_world.internet
    machine, cafe = internet.host("walled", "5.7.0.2"), internet.site("cafe", "5.8.0.2")
    machine.drop_incoming()
    peer_id, echo = world.echo(machine, tmp_path, "--listen", "5.7.0.2:4000", relays=1)
    assert "tcp 5.7.0.2:4000" in echo.line(f"relay {world.relay_ids[0]}")
    assert world.ask(cafe.host("asker", "192.168.1.3"), peer_id) == f"relay {world.relay_ids[0]}"


def test_a_machine_whose_own_address_changes_is_reached_at_the_new_one(
    shared_world: Any, tmp_path: Path
) -> None:
    world, internet = shared_world, shared_world.internet
    machine, hotel = internet.host("mobile", "5.9.0.2"), internet.site("hotel", "5.10.0.2")
    peer_id, echo = world.echo(machine, tmp_path, "--listen", "0.0.0.0:4000")
    echo.line("tcp 5.9.0.2:4000")
    asker = hotel.host("asker", "192.168.1.3")
    assert world.ask(asker, peer_id) == "tcp 5.9.0.2:4000 (open)"
    machine.change_address("5.9.0.77")
    assert "5.9.0.2:" not in echo.line("tcp 5.9.0.77:4000")
    assert world.ask(asker, peer_id) == "tcp 5.9.0.77:4000 (open)"


def test_a_site_whose_public_address_changes_is_reached_at_the_new_one(
    shared_world: Any, tmp_path: Path
) -> None:
    """Nothing changes on the peer's own machine: that its relays do not hear it any more is found
    out when its leases are to be renewed, at a third of ``relay_lease_s``."""
    world, internet = shared_world, shared_world.internet
    farm, shop = internet.site("farm", "5.11.0.2"), internet.site("shop", "5.12.0.2")
    machine = farm.host("peer", "192.168.1.2")
    farm.forward_port(4000, machine)
    peer_id, echo = world.echo(machine, tmp_path, "--listen", "0.0.0.0:4000")
    echo.line("tcp 5.11.0.2:4000")
    farm.gateway.change_address("5.11.0.77")
    assert "5.11.0.2:" not in echo.line("tcp 5.11.0.77:4000", timeout_s=40)
    assert world.ask(shop.host("asker", "192.168.1.3"), peer_id) == "tcp 5.11.0.77:4000 (open)"


def test_when_its_relay_is_killed_a_peer_is_reached_through_the_next_one(
    world: Any, tmp_path: Path
) -> None:
    internet = world.internet
    home, office = internet.site("home", "5.3.0.2"), internet.site("office", "5.4.0.2")
    first_id, second_id = world.relay_ids
    peer_id, echo = world.echo(home.host("peer", "192.168.1.2"), tmp_path)
    echo.line(f"relay {second_id}")
    if f"relay {first_id}" not in echo.printed:
        echo.line(f"relay {first_id}")
    asker = office.host("asker", "192.168.1.3")
    # The bootstrap node on its machine stays.
    world.relays[0].kill()
    # A moment later the record names it still, or does not any more.
    assert world.ask(asker, peer_id) == f"relay {second_id}"
    assert first_id not in echo.line("record stored")
    hops = [(home.gateway, world.machines[1]), (world.machines[1], home.gateway)]
    before = [internet.tcp_bytes(*hop) for hop in hops]
    assert world.ask(asker, peer_id, BODY) == f"relay {second_id}"
    after = [internet.tcp_bytes(*hop) for hop in hops]
    assert all(now - was > len(BODY) for now, was in zip(after, before, strict=True))
