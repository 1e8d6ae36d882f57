"""Programs where there is IPv4, IPv6, or both: to the DHT these are two networks."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

import egtp.__main__ as command_line
from egtp import Address
from egtp.command_options import command_parser
from lookup_dht import DHTLookup, NodeState
from lookup_dht.state.state_file import read_state, write_state
from lookup_dht.wire.contact import Contact
from tests.programs.at_hand import HANGS_S, Start, line, run, stop


def test_an_ipv6_loopback_address_implies_private_addresses(start: Start) -> None:
    dht = start("-m", "lookup_dht", "--listen", "[::1]:0")
    join = ("--bootstrap", line(dht).removeprefix("listening on "))
    echo = start("-m", "egtp", "echo", "--listen", "[::1]:0", *join)
    peer_id = line(echo).removeprefix("peer ")
    assert line(echo).startswith("listening on [::1]:")
    assert line(echo).startswith("record stored by 1 node: tcp [::1]:")
    asked = run("-m", "egtp", "ask", peer_id, "echo", "six", *join)
    assert (asked.returncode, asked.stdout) == (0, "six"), asked.stderr
    stop(echo)
    stop(dht)


def test_who_names_nodes_of_ipv6_joins_over_it(start: Start) -> None:
    dht = start("-m", "lookup_dht", "--listen", "[::1]:0")
    join = ("--bootstrap", line(dht).removeprefix("listening on "))
    echo = start("-m", "egtp", "echo", "--listen", "127.0.0.1:0", *join)
    line(echo)
    line(echo)
    assert line(echo).startswith("record stored by 1 node: tcp 127.0.0.1:")
    stop(echo)
    stop(dht)


def test_whoever_names_nodes_of_both_is_found_over_either(start: Start, tmp_path: Path) -> None:
    dht = start("-m", "lookup_dht", "--listen", "127.0.0.1:0", "--listen", "[::1]:0")
    seeds = [line(dht).removeprefix("listening on ")]
    line(dht)
    seeds.append(line(dht).removeprefix("listening on "))
    either = [("--bootstrap", seed) for seed in seeds]
    state = ("--listen", "127.0.0.1:0", "--state", str(tmp_path))
    echo = start("-m", "egtp", "echo", *state, *either[0], *either[1])
    peer_id = line(echo).removeprefix("peer ")
    for _ in range(2):
        line(echo)
        assert line(echo).startswith("record stored by 2 nodes: tcp 127.0.0.1:")
        for join in (either[0], either[1], either[0] + either[1]):
            asked = run("-m", "egtp", "ask", peer_id, "echo", "six", *join)
            assert (asked.returncode, asked.stdout) == (0, "six"), asked.stderr
        echo.send_signal(signal.SIGUSR1)
        assert echo.stderr is not None
        told = json.loads(echo.stderr.readline())
        assert told["dht"]["contacts"] == told["dht_v6"]["contacts"] == 1
        assert told["dht_v6"]["address"].startswith("[::]:")
        stop(echo)
        # Both nodes know by now whom to join through.
        echo = start("-m", "egtp", "echo", *state)
        assert line(echo) == f"peer {peer_id}"
    stop(dht)


@pytest.mark.parametrize(
    ("options", "dht_listen"),
    [
        (["--bootstrap", "5.0.0.1:9"], {4: "0.0.0.0:0"}),
        (["--bootstrap", "[2a01::1]:9"], {16: "[::]:0"}),
        (
            ["--bootstrap", "5.0.0.1:9", "--bootstrap", "[2a01::1]:9"],
            {4: "0.0.0.0:0", 16: "[::]:0"},
        ),
        (["--bootstrap", "a.org:9"], {4: "0.0.0.0:0"}),
        (["--bootstrap", "a.org:9", "--listen", "[::]:4"], {16: "[::]:0"}),
        (
            ["--bootstrap", "a.org:9", "--listen", "[::]:4", "--listen", "0.0.0.0:4"],
            {4: "0.0.0.0:0"},
        ),
        (
            ["--bootstrap", "a.org:9", "--bootstrap", "[2a01::1]:9"],
            {4: "0.0.0.0:0", 16: "[::]:0"},
        ),
        (["--bootstrap", "a.org:9", "--dht-listen", "[::]:9"], {16: "[::]:9"}),
        (["--bootstrap", "5.0.0.1:9", "--dht-listen", "[::]:9"], {4: "0.0.0.0:0", 16: "[::]:9"}),
        (["--dht-listen", "[::]:9", "--dht-listen", "5.0.0.2:8"], {4: "5.0.0.2:8", 16: "[::]:9"}),
    ],
)
def test_the_options_say_in_which_networks_of_the_dht_a_peer_is(
    options: list[str], dht_listen: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_line, "local_addresses", lambda: ["192.168.1.2", "2a00::1"])
    given = command_parser().parse_args(["echo", *options])
    listen = [Address.parse(text) for text in given.listen or []]
    seeds = [Address.parse(text) for text in given.bootstrap if "org" not in text]
    assert command_line._dht_listen(given, listen, seeds, ()) == dht_listen


@pytest.mark.parametrize(
    ("addresses", "listen", "versions"),
    [
        (["192.168.1.2", "2a00::1"], [], [4]),
        (["2a00::1"], [], [4, 16]),
        (["fe80::1%eth0"], ["0.0.0.0:4"], [4, 16]),
        (["2a00::1"], ["[::]:4"], [16]),
        (["192.168.1.2"], [], [4]),
        ([], [], [4]),
    ],
)
def test_where_a_machine_has_no_ipv4_a_name_stands_for_ipv6_as_well(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], listen: list[str], versions: list[int]
) -> None:
    """Also, since an address of IPv4 may come later, as when the machine boots."""
    monkeypatch.setattr(command_line, "local_addresses", lambda: addresses)
    given = command_parser().parse_args(["echo", "--bootstrap", "a.org:9"])
    assert list(command_line._dht_listen(given, [*map(Address.parse, listen)], [], ())) == versions


@pytest.mark.parametrize(
    ("options", "versions"),
    [
        ([], [4, 16]),
        (["--dht-listen", "0.0.0.0:9"], [4, 16]),
        (["--bootstrap", "5.0.0.1:9"], [4]),
    ],
)
def test_without_a_bootstrap_node_a_peer_goes_back_to_the_networks_that_it_was_in(
    options: list[str], versions: list[int]
) -> None:
    given = command_parser().parse_args(["echo", *options])
    seeds = [Address.parse(text) for text in given.bootstrap]
    assert list(command_line._dht_listen(given, [], seeds, (4, 16))) == versions


async def test_a_version_of_ip_that_leads_nowhere_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    join = DHTLookup._join

    async def join_or_hang(lookup: DHTLookup) -> None:
        if len(lookup.address.ip) == command_line.V6:
            await asyncio.Event().wait()
        await join(lookup)

    monkeypatch.setattr(DHTLookup, "_join", join_or_hang)
    async with DHTLookup("127.0.0.1:0", private_addresses=True) as seed:
        seeds = ("--bootstrap", str(seed.address), "--bootstrap", "[::1]:9")
        options = command_parser().parse_args(["echo", "--state", str(tmp_path), *seeds])
        async with asyncio.timeout(HANGS_S), command_line._node(options) as (_, dht):
            assert [one.contacts for one in dht.values()] == [1, 0]
            # A kill loses nobody who has answered by now.
            assert contacts_in(tmp_path / "dht") == [seed.node_id]
            assert contacts_in(tmp_path / "dht.v6") == []


def contacts_in(file: Path) -> list[bytes]:
    state = read_state(file)
    assert state is not None
    return [contact.id for contact in state.contacts]


async def test_a_peer_of_ipv6_goes_on_with_what_it_kept_when_there_was_one_file_for_both(
    tmp_path: Path,
) -> None:
    async with DHTLookup("[::1]:0", private_addresses=True) as seed:
        home = Contact(seed.node_id, bytes(15) + b"\1", seed.address.port)
        write_state(tmp_path / "dht", NodeState(bytes(20), "main", (home,)))
        kept = ("--state", str(tmp_path), "--private-addresses")
        for _ in range(2):
            options = command_parser().parse_args(["echo", *kept])
            async with asyncio.timeout(HANGS_S), command_line._node(options) as (_, dht):
                assert [(version, one.contacts) for version, one in dht.items()] == [(16, 1)]


def test_where_there_is_no_ipv6_it_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_socket(*_: object) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    given = command_parser().parse_args(["echo"])
    seeds = [Address.parse("5.0.0.1:9"), Address.parse("[2a01::1]:9")]
    monkeypatch.setattr(socket, "socket", no_socket)
    assert command_line._dht_listen(given, [], seeds, ()) == {4: "0.0.0.0:0"}
    said = "this machine has no IPv6; the DHT is joined over IPv4 only"
    assert capsys.readouterr().err == f"egtp: {said}\n"


def test_an_ipv6_address_that_begins_as_those_of_loopback_in_ipv4_do_is_none() -> None:
    done = run("-m", "egtp", "ask", "a" * 32, "--bootstrap", "[7f00::1]:9")
    assert done.returncode == 2
    assert "[7f00::1]:9 cannot be the address of a node on the Internet" in done.stderr
