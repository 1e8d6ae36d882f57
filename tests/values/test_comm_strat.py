"""Strategies: values that choose how a packet travels (R17)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.errors import InvalidConfig, InvalidRecord
from egtp.values import canonical
from egtp.values.comm_strat import (
    Address,
    CommStrat,
    CryptoStrat,
    RelayStrat,
    TCPStrat,
    parse_strategy,
)
from egtp.values.identity import Identity, NodeId

IPS = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
ADDRESSES = st.builds(Address, IPS, st.integers(1, 65535))
KEYS = st.sampled_from([Identity.generate(bytes([n]).__mul__).key for n in range(8)])
TCP = st.builds(TCPStrat, ADDRESSES)
RELAYS = st.builds(
    RelayStrat,
    KEYS,
    st.integers(1, 255),
    st.binary(min_size=32, max_size=32),
    st.lists(ADDRESSES, max_size=4).map(tuple),
)
STRATEGIES: st.SearchStrategy[CommStrat] = st.one_of(TCP, RELAYS)


def as_list(strategy: CommStrat) -> Any:
    """The fields as a decoder gives them."""
    return canonical.decode(canonical.encode(strategy.fields()))


@given(STRATEGIES)
def test_every_strategy_survives_the_round_trip(strategy: CommStrat) -> None:
    assert parse_strategy(as_list(strategy)) == strategy


@given(ADDRESSES)
def test_the_tcp_form_is_type_ip_port(address: Address) -> None:
    fields = canonical.encode(TCPStrat(address).fields())
    assert fields == msgpack.packb([1, address.ip, address.port])


def test_an_open_connection_is_never_encoded() -> None:
    address = Address(bytes([192, 0, 2, 7]), 4000)
    assert TCPStrat(address, connection=17).fields() == TCPStrat(address).fields()
    assert parse_strategy(as_list(TCPStrat(address, connection=17))) == TCPStrat(address)


def test_the_relay_id_follows_from_its_key(alice: Identity) -> None:
    strategy = RelayStrat(alice.key, 1, alice.channel_key)
    assert strategy.relay_id == alice.node_id
    assert type(strategy.relay_id) is NodeId


@given(STRATEGIES, st.lists(st.one_of(st.none(), st.booleans(), st.binary()), max_size=3))
def test_elements_after_the_known_ones_are_skipped(strategy: CommStrat, more: list[Any]) -> None:
    if isinstance(strategy, RelayStrat) and len(strategy.hints) < 4:
        return  # there, what follows is a hint
    assert parse_strategy([*as_list(strategy), *more]) == strategy


@given(RELAYS)
def test_elements_after_the_known_ones_of_a_hint_are_skipped(strategy: RelayStrat) -> None:
    fields = [[*part, "later"] if isinstance(part, list) else part for part in as_list(strategy)]
    assert parse_strategy(fields) == strategy


@pytest.mark.parametrize("fields", [[3], [99, b"anything"], [0], [-1, 1], [2**64 - 1, None]])
def test_an_unknown_type_is_skipped(fields: Any) -> None:
    assert parse_strategy(fields) is None


KEY = Identity.generate(lambda _: b"k" * 32).key
SMALL_ORDER_KEY = bytes(32)
CHANNEL_KEY = bytes(range(32))
IP = bytes([192, 0, 2, 7])


@pytest.mark.parametrize(
    "fields",
    [
        None,
        1,
        b"",
        "tcp",
        [],
        [None],
        [True],
        [True, IP, 4000],  # true equals the type 1 and is not it
        [b"1", IP, 4000],
        [[1], IP, 4000],
        [1],
        [1, IP],
        [1, IP, 0],
        [1, IP, -1],
        [1, IP, 65536],
        [1, IP, True],
        [1, IP, b"4000"],
        [1, IP, None],
        [1, "192.0.2.7", 4000],
        [1, b"", 4000],
        [1, IP[:3], 4000],
        [1, IP + b"\0", 4000],
        [1, IP * 2, 4000],
        [1, bytes(15), 4000],
        [1, bytes(17), 4000],
        [2],
        [2, KEY, 1],
        [2, KEY, 0, CHANNEL_KEY],
        [2, KEY, -1, CHANNEL_KEY],
        [2, KEY, True, CHANNEL_KEY],
        [2, KEY, None, CHANNEL_KEY],
        [2, KEY, 1, CHANNEL_KEY[:31]],
        [2, KEY, 1, CHANNEL_KEY + b"\0"],
        [2, KEY, 1, "x" * 32],
        [2, KEY[:31], 1, CHANNEL_KEY],
        [2, bytes(20), 1, CHANNEL_KEY],
        [2, SMALL_ORDER_KEY, 1, CHANNEL_KEY],
        [2, b"\xff" * 32, 1, CHANNEL_KEY],
        [2, KEY, 1, CHANNEL_KEY, None],
        [2, KEY, 1, CHANNEL_KEY, IP, 4000],
        [2, KEY, 1, CHANNEL_KEY, [IP]],
        [2, KEY, 1, CHANNEL_KEY, [IP, 0]],
        [2, KEY, 1, CHANNEL_KEY, [IP, True]],
        [2, KEY, 1, CHANNEL_KEY, [IP, 65536]],
        [2, KEY, 1, CHANNEL_KEY, [b"", 4000]],
        [2, KEY, 1, CHANNEL_KEY, [IP, 4000], [IP[:2], 4000]],
    ],
    ids=repr,
)
def test_a_known_type_with_wrong_fields_is_refused(fields: Any) -> None:
    with pytest.raises(InvalidRecord):
        parse_strategy(fields)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.integers(-(2**63), 2**64 - 1),
    st.binary(max_size=40),
    st.sampled_from([IP, KEY, CHANNEL_KEY, bytes(16)]),
    st.text(st.characters(max_codepoint=127), max_size=5),
)
DECODED = st.one_of(SCALARS, st.lists(st.one_of(SCALARS, st.lists(SCALARS, max_size=3))))


@given(DECODED)
def test_any_decoded_value_is_a_strategy_unknown_or_refused(fields: Any) -> None:
    try:
        strategy = parse_strategy(fields)
    except InvalidRecord:
        return
    if strategy is None:
        assert fields[0] not in (1, 2)
    else:
        known = as_list(strategy)
        assert [type(part) for part in fields[: len(known)]] == [type(part) for part in known]


@dataclass
class Recorder:
    """A carrier that only remembers what it was asked to move."""

    moved: list[tuple[str, CommStrat, bytes]] = field(default_factory=list)

    def takes_more(self, _: CommStrat) -> bool:
        raise AssertionError

    def is_throttled(self, _: CommStrat) -> bool:
        raise AssertionError

    def send_tcp(self, strategy: TCPStrat, packet: bytes) -> None:
        self.moved.append(("tcp", strategy, packet))

    def send_relay(self, strategy: RelayStrat, packet: bytes) -> None:
        self.moved.append(("relay", strategy, packet))


class Reverser:
    def seal(self, plaintext: bytes) -> bytes:
        return plaintext[::-1]


def test_the_strategy_chooses_and_the_carrier_moves() -> None:
    tcp = TCPStrat(Address(IP, 4000))
    relay = RelayStrat(KEY, 1, CHANNEL_KEY)
    carrier = Recorder()
    tcp.send(b"one", carrier)
    relay.send(b"two", carrier)
    assert carrier.moved == [("tcp", tcp, b"one"), ("relay", relay, b"two")]


def test_crypto_wraps_a_lower_strategy_and_seals_what_it_sends() -> None:
    lower = TCPStrat(Address(IP, 4000))
    carrier = Recorder()
    CryptoStrat(lower, Reverser()).send(b"abc", carrier)
    assert carrier.moved == [("tcp", lower, b"cba")]


def test_crypto_has_no_form_in_a_record() -> None:
    assert not hasattr(CryptoStrat, "fields")


@given(ADDRESSES.filter(lambda it: not it.ip.startswith(bytes(10) + b"\xff\xff")))
def test_an_address_is_read_from_its_own_text(address: Address) -> None:
    assert Address.parse(str(address)) == address
    assert ipaddress.ip_address(address.host).packed == address.ip


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("127.0.0.1:4000", "127.0.0.1", 4000),
        ("[::1]:4000", "::1", 4000),
        ("[2001:DB8::7]:65535", "2001:db8::7", 65535),
        ("0.0.0.0:0", "0.0.0.0", 0),  # noqa: S104
        ("[::ffff:192.0.2.7]:4000", "192.0.2.7", 4000),
        ("[::FFFF:c000:207]:4000", "192.0.2.7", 4000),
        ("[::192.0.2.7]:4000", "::192.0.2.7", 4000),
    ],
)
def test_an_address_is_ip_and_port(text: str, ip: str, port: int) -> None:
    assert Address.parse(text) == Address(ipaddress.ip_address(ip).packed, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        ":4000",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:-1",
        "127.0.0.1:+1",
        "127.0.0.1:1_0",
        "127.0.0.1: 1",
        "127.0.0.1:65536",
        "127.0.0.1:" + "9" * 10_000,
        "127.0.0.1:\u0661",
        "127.0.0.1:\u00b2",
        "127.0.0.256:1",
        "127.0.0.01:1",
        "127.1:1",
        "localhost:4000",
        "egtp.example:4000",
        "[]:1",
        "[::1]",
        "[::1]:",
        "[::1:4000",
        "[::g]:1",
        "[::1]x:1",
    ],
)
def test_what_is_no_address_is_a_mistake_in_the_configuration(text: str) -> None:
    with pytest.raises(InvalidConfig):
        Address.parse(text)


@pytest.mark.parametrize("text", ["::1:4000", "2001:db8::1:7", "2001:db8:0:0:0:0:0:1:7", "::7:1"])
def test_an_ipv6_address_without_brackets_is_not_guessed_at(text: str) -> None:
    """``2001:db8::1:7`` is an address without a port; its tail must not become one."""
    with pytest.raises(InvalidConfig):
        Address.parse(text)


@pytest.mark.parametrize("text", ["[fe80::1%eth0]:4000", "[fe80::1%1]:4000"])
def test_a_zone_is_refused_rather_than_lost(text: str) -> None:
    with pytest.raises(InvalidConfig):
        Address.parse(text)


@pytest.mark.parametrize("text", ["[[::1]]:80", "]::1[:80", "127.0.0.1]:80", "[127.0.0.1:80"])
def test_brackets_come_in_one_pair(text: str) -> None:
    with pytest.raises(InvalidConfig):
        Address.parse(text)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_the_users_mistake(text: str) -> None:
    try:
        address = Address.parse(text)
    except InvalidConfig:
        return
    assert Address.parse(str(address)) == address
