"""The programs where there is IPv6: instead of IPv4, and beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simulations.netns import Internet

ROOT = Path(__file__).parents[2]


def test_a_family_of_addresses_that_leads_nowhere_holds_nobody_up(
    shared_world: Any, tmp_path: Path
) -> None:
    """Neither end knows: its addresses and routes are as they were."""
    world, internet = shared_world, shared_world.internet
    peer, asker, unlucky = (
        internet.host(name, f"5.{number}.0.2", ipv6=f"2a01:{number}::2")
        for name, number in (("both", 21), ("asker", 22), ("unlucky", 23))
    )
    listen = ("--listen", "0.0.0.0:4000", "--listen", "[::]:4000")
    peer_id, echo = world.echo(peer, tmp_path, *listen, relays=0)
    assert "tcp 5.21.0.2:4000, tcp [2a01:21::2]:4000" in echo.line("record stored")
    assert world.ask(asker, peer_id) == "tcp [2a01:21::2]:4000 (open)"
    internet.drop_ipv6(unlucky)
    assert world.ask(unlucky, peer_id) == "tcp 5.21.0.2:4000 (open)"
    internet.drop_ipv6(peer)
    assert world.ask(asker, peer_id) == "tcp 5.21.0.2:4000 (open)"


def test_where_a_firewall_lets_no_ipv6_in_a_peer_is_reached_through_its_relay(
    shared_world: Any, tmp_path: Path
) -> None:
    """It announces its IPv6 address all the same: nobody has tried whether others get through."""
    world, internet = shared_world, shared_world.internet
    walled, asker = (
        internet.host(name, f"5.{number}.0.2", ipv6=f"2a01:{number}::2")
        for name, number in (("walled6", 24), ("asker6", 25))
    )
    walled.drop_incoming()
    relay_id = world.relay_ids[0]
    peer_id, echo = world.echo(walled, tmp_path, "--listen", "[::]:4000", relays=1)
    assert f"tcp [2a01:24::2]:4000, relay {relay_id}" in echo.line("relay ")
    assert world.ask(asker, peer_id) == f"relay {relay_id}"


def test_there_is_a_network_without_ipv4(internet: Internet, tmp_path: Path) -> None:
    one, two, three = (
        internet.host(name, f"5.{number}.0.2", ipv6=f"2a01:{number}::2")
        for name, number in (("one", 1), ("two", 2), ("three", 3))
    )
    for host in (one, two, three):
        host.ip(f"address delete {host.address}/24 dev wan")
    join = ("--bootstrap", "[2a01:1::2]:9100")
    bootstrap = one.start("-m", "lookup_dht", "--listen", "[::]:9100", cwd=ROOT)
    bootstrap.line("listening on")
    relay = one.start("-m", "egtp", "relay", "--listen", "[::]:4000", *join, cwd=ROOT)
    relay_id = relay.line("relay ").removeprefix("relay ")
    relays = tmp_path / "relays.toml"
    relays.write_text(f"[[relay]]\n{relay.line('contact = ')}\n")
    relay.line("tcp [2a01:1::2]:4000")
    echo = two.start("-m", "egtp", "echo", "--relays", str(relays), *join, cwd=ROOT)
    peer_id = echo.line("peer ").removeprefix("peer ")
    echo.line(f"relay {relay_id}")
    asked = three.start("-m", "egtp", "ask", peer_id, "echo", "hello", *join, cwd=ROOT)
    assert asked.ended() == (0, f"5 bytes, relay {relay_id}\nhello")


def test_a_machine_with_nothing_but_a_link_local_address_and_a_route_has_no_address(
    internet: Internet,
) -> None:
    """As when the router has withdrawn its prefix, and is still there itself."""
    host = internet.host("host", "5.1.0.2", ipv6="2a01:1::2")
    host.ip(f"address delete {host.address}/24 dev wan")
    tell = "import egtp; print(egtp.local_addresses())"
    assert host.start("-c", tell, cwd=ROOT).ended() == (0, "['2a01:1::2']")
    host.ip("address delete 2a01:1::2/64 dev wan", "route replace ::/0 dev wan")
    assert host.start("-c", tell, cwd=ROOT).ended() == (0, "[]")


def test_a_peer_in_both_networks_is_found_by_machines_that_have_one_of_them(
    internet: Internet,
) -> None:
    one, peer, only_ipv4, only_ipv6 = (
        internet.host(name, f"5.{number}.0.2", ipv6=f"2a01:{number}::2")
        for name, number in (("one", 1), ("peer", 2), ("four", 3), ("six", 4))
    )
    internet.drop_ipv6(only_ipv4)
    only_ipv6.ip(f"address delete {only_ipv6.address}/24 dev wan")
    either = ("5.1.0.2:9100", "[2a01:1::2]:9100")
    listen = [option for address in either for option in ("--listen", address)]
    join = [option for address in either for option in ("--bootstrap", address)]
    bootstrap = one.start("-m", "lookup_dht", *listen, cwd=ROOT)
    for _ in either:
        bootstrap.line("listening on")
    listen = ["--listen", "0.0.0.0:4000", "--listen", "[::]:4000"]
    echo = peer.start("-m", "egtp", "echo", *listen, *join, cwd=ROOT)
    peer_id = echo.line("peer ").removeprefix("peer ")
    echo.line("record stored by 2 nodes: ")
    for asker, path in (
        (only_ipv4, "tcp 5.2.0.2:4000"),
        (only_ipv6, "tcp [2a01:2::2]:4000"),
    ):
        asked = asker.start("-m", "egtp", "ask", peer_id, "echo", "hello", *join, cwd=ROOT)
        assert asked.ended() == (0, f"5 bytes, {path} (open)\nhello")


def test_a_machine_that_dials_from_temporary_addresses_is_found_and_its_prefix_may_change(
    internet: Internet, tmp_path: Path
) -> None:
    """It also serves as the bootstrap node, at the address that it keeps."""
    machine, relaying, asker = (
        internet.host(name, f"5.{number}.0.2", ipv6=f"2a01:{number}::2")
        for name, number in (("private", 1), ("relay", 2), ("asker", 3))
    )
    machine.use_temporary_addresses()
    bootstrap = machine.start("-m", "lookup_dht", "--listen", "[::]:9100", cwd=ROOT)
    bootstrap.line("listening on")
    join = ("--bootstrap", "[2a01:1::2]:9100")
    serves = ("--listen", "[::]:4000", "--dht-listen", "[::]:9100")
    relay = relaying.start("-m", "egtp", "relay", *serves, *join, cwd=ROOT)
    relay_id = relay.line("relay ").removeprefix("relay ")
    relays = tmp_path / "relays.toml"
    relays.write_text(f"[[relay]]\n{relay.line('contact = ')}\n")
    relay.line("record stored")
    join = ("--bootstrap", "[2a01:2::2]:9100")
    echo = machine.start("-m", "egtp", "echo", "--relays", str(relays), *join, cwd=ROOT)
    peer_id = echo.line("peer ").removeprefix("peer ")
    echo.line(f"relay {relay_id}")
    internet.renumber(machine, "2a01:9::2")
    # It has hung up within half a second, and asks for another lease at once; with what nobody
    # hears any more, it would be away for twenty.
    asked = asker.start("-m", "egtp", "ask", peer_id, "echo", "hello", *join, cwd=ROOT)
    assert asked.ended() == (0, f"5 bytes, relay {relay_id}\nhello")
