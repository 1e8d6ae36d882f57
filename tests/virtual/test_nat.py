"""The translation table of a NAT, against a model that remembers everything and is not clever."""

from __future__ import annotations

from collections import Counter
from typing import Final
from unittest import mock

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from simulations.virtual import ImpossibleWorld, Nat, NatKind, nat
from simulations.virtual.nat import Endpoint, Mapping

PUBLIC: Final = "203.0.113.9"
FEW_PORTS: Final = range(20_000, 20_006)
IDLE_S: Final = 10.0

inside = st.sampled_from([("10.0.0.1", 1), ("10.0.0.1", 2), ("10.0.0.2", 1), ("10.0.0.3", 9)])
outside = st.sampled_from([("1.1.1.1", 1), ("1.1.1.1", 2), ("2.2.2.2", 1), ("2.2.2.2", 2)])
protocols = st.sampled_from(["udp", "tcp"])
kinds = list(NatKind)


class NatMachine(RuleBasedStateMachine):
    """Plays a device with very few ports. The model keeps what was sent, by port and device."""

    def __init__(self) -> None:
        super().__init__()
        patch = mock.patch.object(nat, "PORTS", FEW_PORTS)
        patch.start()
        self.stop = patch.stop
        self.now_s = 0.0
        self.holder: dict[tuple[str, int], tuple[Endpoint, Endpoint | None]] = {}
        self.used_s: dict[tuple[str, int], float] = {}
        self.sent_to: dict[tuple[str, int], set[Endpoint]] = {}
        self.forwarded: dict[tuple[str, int], Endpoint] = {}

    def teardown(self) -> None:
        self.stop()

    @initialize(kind=st.sampled_from(kinds))
    def new(self, kind: NatKind) -> None:
        self.kind = kind
        self.device = Nat(kind, PUBLIC, udp_idle_s=IDLE_S, tcp_idle_s=3 * IDLE_S)

    def lives(self, key: tuple[str, int]) -> bool:
        idle_s = IDLE_S if key[0] == "udp" else 3 * IDLE_S
        return key in self.holder and self.now_s - self.used_s[key] <= idle_s

    @rule(seconds=st.sampled_from([0.0, 1.0, IDLE_S / 2, IDLE_S, 3 * IDLE_S]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(protocol=protocols, source=inside, remote=outside)
    def send(self, protocol: str, source: Endpoint, remote: Endpoint) -> None:
        who = (source, remote if self.kind is NatKind.SYMMETRIC else None)
        mine = [k for k, v in self.holder.items() if k[0] == protocol and v == who]
        mine = [key for key in mine if self.lives(key)]
        live = {key for key in self.holder if self.lives(key)}
        mapping = self.device.outbound(self.now_s, protocol, source, remote)
        key = (protocol, mapping.outside[1])
        assert mapping.outside[0] == self.device.address
        assert mapping.inside == source
        if source in [to for (p, _), to in self.forwarded.items() if p == protocol]:
            assert self.forwarded[key] == source
            return
        assert key not in self.forwarded
        assert mapping.outside[1] in FEW_PORTS
        if mine:
            assert key in mine, "whoever has a mapping keeps it"
        else:
            free = {(protocol, port) for port in FEW_PORTS} - live - set(self.forwarded)
            assert key in free or not free, "nobody loses a port while there is another"
            self.sent_to[key] = set()
        self.holder = {k: v for k, v in self.holder.items() if k[0] != protocol or v != who}
        self.holder[key] = who
        self.used_s[key] = self.now_s
        self.sent_to[key].add(remote)

    @rule(protocol=protocols, port=st.sampled_from(FEW_PORTS), remote=outside)
    def receive(self, protocol: str, port: int, remote: Endpoint) -> None:
        key = (protocol, port)
        mapping = self.device.inbound(self.now_s, protocol, port, remote)
        if key in self.forwarded:
            expected: Endpoint | None = self.forwarded[key]
        elif self.lives(key) and self.admits(key, remote):
            expected = self.holder[key][0]
        else:
            expected = None
        assert (None if mapping is None else mapping.inside) == expected

    def admits(self, key: tuple[str, int], remote: Endpoint) -> bool:
        sent_to = self.sent_to[key]
        if self.kind is NatKind.FULL_CONE:
            return True
        if self.kind is NatKind.ADDRESS_RESTRICTED:
            return remote[0] in {address for address, _ in sent_to}
        return remote in sent_to

    @rule(protocol=protocols, port=st.sampled_from(FEW_PORTS[:2]), to=inside)
    def forward(self, protocol: str, port: int, to: Endpoint) -> None:
        self.device.forward(protocol, port, to)
        self.forwarded[protocol, port] = to
        self.holder.pop((protocol, port), None)

    @rule()
    def start_again(self) -> None:
        self.device.forget()
        self.holder.clear()

    @rule(number=st.integers(1, 9))
    def change_address(self, number: int) -> None:
        self.device.change_address(f"203.0.113.{number}")
        self.holder.clear()

    @invariant()
    def the_table_is_one(self) -> None:
        device = self.device
        by_port, by_inside = device._by_port.values(), device._by_inside.values()
        assert Counter(map(id, by_port)) == Counter(map(id, by_inside))
        assert len(by_port) <= 2 * len(FEW_PORTS)


TestNatMachine = NatMachine.TestCase


@pytest.fixture
def few_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nat, "PORTS", FEW_PORTS)


def port_of(device: Nat, now_s: float, source: Endpoint, remote: Endpoint = ("1.1.1.1", 1)) -> int:
    return device.outbound(now_s, "udp", source, remote).outside[1]


def test_ports_are_given_out_in_turn_and_begin_again(few_ports: None) -> None:
    device = Nat(NatKind.FULL_CONE, PUBLIC)
    given = [port_of(device, 0.0, ("10.0.0.1", n)) for n in range(len(FEW_PORTS))]
    assert given == list(FEW_PORTS)
    # Nothing is free: those lose theirs who have had it longest.
    again = [port_of(device, 0.0, ("10.0.0.2", n)) for n in range(len(FEW_PORTS))]
    assert again == given


def test_a_port_that_became_somebody_elses_is_not_taken_away_from_him(few_ports: None) -> None:
    device = Nat(NatKind.FULL_CONE, PUBLIC, udp_idle_s=10)
    former = port_of(device, 0.0, ("10.0.0.1", 1))
    for n in range(len(FEW_PORTS)):
        port_of(device, 100.0, ("10.0.0.2", n))
    holder = device.inbound(100.0, "udp", former, ("2.2.2.2", 2))
    assert holder is not None and holder.inside[0] == "10.0.0.2"  # noqa: PT018
    # The first one is back, and the table is full of live mappings.
    port_of(device, 105.0, ("10.0.0.1", 1))
    admitted = [device.inbound(105.0, "udp", port, ("2.2.2.2", 2)) for port in FEW_PORTS]
    assert None not in admitted


def test_a_table_does_not_grow_with_what_has_expired(few_ports: None) -> None:
    device = Nat(NatKind.SYMMETRIC, PUBLIC, udp_idle_s=1)
    for n in range(1_000):
        port_of(device, 2.0 * n, ("10.0.0.1", n), ("1.1.1.1", n))
    assert len(device._by_inside) == len(device._by_port) == len(FEW_PORTS)


@pytest.mark.parametrize("kind", [NatKind.ADDRESS_RESTRICTED, NatKind.PORT_RESTRICTED])
def test_whom_nothing_was_sent_to_for_long_is_a_stranger_though_the_mapping_is_used(
    kind: NatKind,
) -> None:
    device = Nat(kind, PUBLIC, udp_idle_s=10)
    one, other = ("1.1.1.1", 1), ("2.2.2.2", 2)
    port = port_of(device, 0.0, ("10.0.0.1", 1), one)
    assert port_of(device, 8.0, ("10.0.0.1", 1), other) == port
    assert device.inbound(10.0, "udp", port, one) is not None
    assert device.inbound(10.1, "udp", port, one) is None
    assert device.inbound(10.1, "udp", port, other) is not None


def test_a_mapping_lives_for_as_long_as_it_is_used() -> None:
    device = Nat(NatKind.PORT_RESTRICTED, PUBLIC, udp_idle_s=10, tcp_idle_s=100)
    first = port_of(device, 0.0, ("10.0.0.1", 1))
    assert port_of(device, 10.0, ("10.0.0.1", 1)) == first
    assert device.inbound(20.0, "udp", first, ("1.1.1.1", 1)) is not None
    assert device.inbound(20.1, "udp", first, ("1.1.1.1", 1)) is None
    assert port_of(device, 20.1, ("10.0.0.1", 1)) != first
    tcp = device.outbound(0.0, "tcp", ("10.0.0.1", 1), ("1.1.1.1", 1)).outside[1]
    assert device.inbound(100.0, "tcp", tcp, ("1.1.1.1", 1)) is not None
    assert device.inbound(100.1, "tcp", tcp, ("1.1.1.1", 1)) is None


@pytest.mark.parametrize("kind", kinds)
def test_who_was_sent_nothing_since_the_mapping_expired_is_a_stranger_again(kind: NatKind) -> None:
    device = Nat(kind, PUBLIC, udp_idle_s=10)
    port_of(device, 0.0, ("10.0.0.1", 1), ("1.1.1.1", 1))
    port = port_of(device, 50.0, ("10.0.0.1", 1), ("2.2.2.2", 2))
    stranger = device.inbound(50.0, "udp", port, ("1.1.1.1", 1))
    assert (stranger is not None) == (kind is NatKind.FULL_CONE)


def test_a_port_that_is_forwarded_is_nobody_elses() -> None:
    device = Nat(NatKind.FULL_CONE, PUBLIC)
    mapping = device.outbound(0.0, "udp", ("10.0.0.1", 1), ("1.1.1.1", 1))
    device.forward("udp", mapping.outside[1], ("10.0.0.2", 2))
    assert not device.is_live(mapping, 0.0)
    forwarded = device.inbound(1e9, "udp", mapping.outside[1], ("9.9.9.9", 9))
    assert forwarded is not None
    assert forwarded.inside == ("10.0.0.2", 2)
    assert port_of(device, 0.0, ("10.0.0.1", 1)) != mapping.outside[1]
    # And what comes from behind it leaves by it.
    assert port_of(device, 0.0, ("10.0.0.2", 2)) == mapping.outside[1]


def test_a_forwarded_port_outlives_the_address_but_its_connections_do_not() -> None:
    device = Nat(NatKind.SYMMETRIC, PUBLIC)
    device.forward("tcp", 80, ("10.0.0.1", 8080))
    before = device.inbound(0.0, "tcp", 80, ("1.1.1.1", 1))
    device.forget()
    assert isinstance(before, Mapping)
    assert device.is_live(before, 1e9)
    device.change_address("203.0.113.10")
    assert not device.is_live(before, 0.0)
    after = device.inbound(0.0, "tcp", 80, ("1.1.1.1", 1))
    assert after is not None
    assert after.outside == ("203.0.113.10", 80)


@pytest.mark.parametrize("idle_s", [0, -1, float("nan")])
def test_a_device_remembers_for_some_time(idle_s: float) -> None:
    with pytest.raises(ImpossibleWorld, match="udp_idle_s"):
        Nat(NatKind.FULL_CONE, PUBLIC, udp_idle_s=idle_s)
    with pytest.raises(ImpossibleWorld, match="tcp_idle_s"):
        Nat(NatKind.FULL_CONE, PUBLIC, tcp_idle_s=idle_s)


def test_only_what_is_simulated_can_be_forwarded() -> None:
    with pytest.raises(ImpossibleWorld, match="a NAT forwards udp or tcp, not 'TCP'"):
        Nat(NatKind.FULL_CONE, PUBLIC).forward("TCP", 80, ("10.0.0.1", 8080))


def test_there_is_no_such_kind_of_device() -> None:
    with pytest.raises(
        ImpossibleWorld,
        match=r"the kind of a NAT must be one of NatKind.FULL_CONE, .*, not 'symmetric'",
    ):
        Nat("symmetric", "203.0.113.1")  # type: ignore[arg-type]
