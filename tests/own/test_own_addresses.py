"""What is announced of a node's own addresses, as a pure machine."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from egtp.own.own_addresses import ANNOUNCED_MAX, OwnAddresses, OwnState, parse_interfaces
from egtp.values.comm_strat import Address

RECHECK_S, RETRY_S = 600.0, 60.0


def address(text: str) -> Address:
    return Address.parse(text)


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def fresh(*listening: str, **options: Any) -> OwnAddresses:
    settings: dict[str, Any] = {"private_addresses": False, "lan_addresses": True}
    made = OwnAddresses(**(settings | options), recheck_s=RECHECK_S, retry_s=RETRY_S)
    made.listen(map(address, listening))
    return made


def announced(own: OwnAddresses) -> list[str]:
    return [str(one) for one in own.announced]


def test_what_is_listened_on_is_announced_and_a_wildcard_is_not() -> None:
    own = fresh("9.0.0.1:4000", "0.0.0.0:4001", "192.168.1.2:4002")
    assert announced(own) == ["9.0.0.1:4000", "192.168.1.2:4002"]


def test_a_wildcard_stands_for_the_interfaces_of_its_family_public_ones_first() -> None:
    own = fresh("0.0.0.0:4000", "[::]:4001")
    own.has_interfaces(
        parse_interfaces([
            "127.0.0.1", "169.254.1.1", "192.168.1.2/16", "9.0.0.1",
            "fe80::1%eth0", "::1", "2a00::1",
        ])
    )  # fmt: skip
    assert announced(own) == ["9.0.0.1:4000", "[2a00::1]:4001", "192.168.1.2:4000"]
    states = [one.state for one in own.explain({})]
    assert states == [OwnState.INTERFACE, OwnState.INTERFACE, OwnState.LAN]


def test_the_ipv4_address_of_a_phone_whose_network_has_only_ipv6_is_kept_back() -> None:
    """Each phone there has the same one."""
    own = fresh("0.0.0.0:4000", "[::]:4001")
    own.has_interfaces(parse_interfaces(["192.0.0.4", "2a00::1"]))
    assert announced(own) == ["[2a00::1]:4001"]


def test_private_addresses_count_as_public_in_a_lab_and_are_kept_back_if_that_is_wanted() -> None:
    lab = fresh("0.0.0.0:4000", private_addresses=True)
    shy = fresh("0.0.0.0:4000", lan_addresses=False)
    for own in (lab, shy):
        own.has_interfaces(parse_interfaces(["192.168.1.2"]))
    assert [one.state for one in lab.explain({})] == [OwnState.INTERFACE]
    assert announced(shy) == []


def test_an_elected_address_is_announced_from_its_confirmation_to_its_failure() -> None:
    own, seen = fresh("0.0.0.0:4000"), address("9.9.9.9:4000")
    assert own.due(0.0) is None
    own.elected(ip("9.9.9.9"))
    assert own.due(0.0) == seen
    assert announced(own) == []
    own.confirmed(seen, 100.0)
    assert announced(own) == ["9.9.9.9:4000"]
    assert own.due(100.0 + RECHECK_S - 1) is None
    assert own.due(100.0 + RECHECK_S) == seen
    own.failed(seen, "connection refused", 700.0)
    assert announced(own) == []
    (one,) = own.explain({seen.ip: 3})
    assert str(one) == (
        "9.9.9.9:4000 observed, but not reachable (by 3 networks; connection refused)"
    )


def test_that_nobody_looked_leaves_things_as_they_are_until_somebody_does() -> None:
    own, seen = fresh("0.0.0.0:4000"), address("9.9.9.9:4000")
    own.elected(seen.ip)
    own.nobody_looked(seen, "there is nobody to be asked", 0.0)
    assert own.due(0.0) is None
    assert own.next_due_s() == RETRY_S
    own.confirmed(seen, RETRY_S)
    own.nobody_looked(seen, "there is nobody to be asked", 700.0)
    assert announced(own) == ["9.9.9.9:4000"]


def test_what_fails_again_and_again_is_checked_more_and_more_rarely() -> None:
    own, seen = fresh("0.0.0.0:4000"), address("9.9.9.9:4000")
    own.elected(seen.ip)
    now_s, pauses = 0.0, []
    for _ in range(50):
        own.failed(seen, "no answer", now_s)
        pauses.append(own.next_due_s() - now_s)
        now_s = own.next_due_s()
    assert pauses[:5] == [60.0, 120.0, 240.0, 480.0, 600.0]
    assert pauses[-1] == RECHECK_S


def test_a_failed_address_is_checked_no_sooner_than_it_may_be_tried_again() -> None:
    """Even if a confirmed one is looked at more often than that."""
    own, seen = (
        OwnAddresses(private_addresses=False, lan_addresses=True, recheck_s=10.0, retry_s=60.0),
        address("9.9.9.9:4000"),
    )
    own.listen([address("0.0.0.0:4000")])
    own.elected(seen.ip)
    for now_s in (0.0, 60.0):
        own.failed(seen, "no answer", now_s)
        assert own.next_due_s() == now_s + 60.0


def test_a_port_that_nobody_dials_back_is_never_due_and_says_why() -> None:
    own = fresh("0.0.0.0:1023", "0.0.0.0:1024")
    own.elected(ip("9.9.9.9"))
    assert own.due(0.0) == address("9.9.9.9:1024")
    own.confirmed(address("9.9.9.9:1024"), 0.0)
    assert own.due(RECHECK_S - 1) is None
    assert [one.detail for one in own.explain({})] == [
        "by 0 networks",
        "by 0 networks; a port below 1024 is not dialled back",
    ]


def test_of_several_addresses_the_one_that_is_due_first_is_waited_for() -> None:
    own = fresh("0.0.0.0:4000", "0.0.0.0:4001")
    own.elected(ip("9.9.9.9"))
    own.confirmed(address("9.9.9.9:4000"), 0.0)
    own.failed(address("9.9.9.9:4001"), "no answer", 0.0)
    assert own.next_due_s() == RETRY_S
    assert own.due(RETRY_S) == address("9.9.9.9:4001")


def test_another_elected_address_takes_the_place_of_the_one_before_in_its_family_only() -> None:
    own = fresh("0.0.0.0:4000", "[::]:4000")
    for one in ("9.9.9.9", "2a00::9"):
        own.elected(ip(one))
        own.confirmed(Address(ip(one), 4000), 0.0)
    assert announced(own) == ["9.9.9.9:4000", "[2a00::9]:4000"]
    own.elected(ip("9.8.8.8"))
    assert announced(own) == ["[2a00::9]:4000"]
    own.confirmed(address("9.9.9.9:4000"), 1.0)
    assert announced(own) == ["[2a00::9]:4000"], "an answer that came too late"


def test_doubt_brings_the_next_check_forward() -> None:
    own, seen = fresh("0.0.0.0:4000"), address("9.9.9.9:4000")
    own.elected(seen.ip)
    own.confirmed(seen, 0.0)
    own.doubt(5.0)
    assert own.due(5.0) == seen
    assert announced(own) == ["9.9.9.9:4000"]


def test_an_address_of_an_interface_needs_no_check() -> None:
    own = fresh("0.0.0.0:4000")
    own.elected(ip("9.0.0.1"))
    assert own.due(0.0) is not None
    own.has_interfaces(parse_interfaces(["9.0.0.1"]))
    assert own.due(0.0) is None
    assert announced(own) == ["9.0.0.1:4000"]


def test_the_temporary_address_that_a_machine_dials_from_is_no_candidate() -> None:
    own = fresh("[::]:4000")
    own.has_interfaces(parse_interfaces(["2a00::1"]))
    own.elected(ip("2a00::1234"))
    assert own.due(0.0) is None
    own.elected(ip("2a00:0:0:1::1"))
    assert own.due(0.0) == address("[2a00:0:0:1::1]:4000")


def test_a_private_address_listened_on_may_be_behind_a_forwarding() -> None:
    own = fresh("192.168.1.2:4000", "9.0.0.1:4001")
    own.elected(ip("9.9.9.9"))
    assert own.due(0.0) == address("9.9.9.9:4000")
    own.confirmed(address("9.9.9.9:4000"), 0.0)
    assert announced(own) == ["192.168.1.2:4000", "9.0.0.1:4001", "9.9.9.9:4000"]


def test_what_is_configured_is_all_there_is() -> None:
    own = fresh()
    own.listen([address("0.0.0.0:4000")], [address("9.1.1.1:80")])
    own.has_interfaces(parse_interfaces(["9.0.0.1"]))
    own.elected(ip("9.9.9.9"))
    assert own.due(0.0) is None
    assert announced(own) == ["9.1.1.1:80"]
    assert [str(one) for one in own.explain({})] == ["9.1.1.1:80 configured"]


def test_a_port_below_1024_is_never_due() -> None:
    own = fresh("0.0.0.0:443")
    own.elected(ip("9.9.9.9"))
    own.doubt(0.0)
    assert own.due(1e9) is None
    assert own.next_due_s() == float("inf")


@given(st.lists(st.integers(1, 200), max_size=30, unique=True))
def test_relays_keep_a_place_in_the_record_however_many_interfaces_there_are(
    hosts: list[int],
) -> None:
    own = fresh("0.0.0.0:4000")
    own.has_interfaces(parse_interfaces([f"9.0.0.{host}" for host in hosts]))
    assert len(own.announced) == min(len(hosts), ANNOUNCED_MAX)
    assert len(own.explain({})) == len(hosts)


def test_many_interfaces_of_one_version_of_ip_leave_a_place_to_the_other() -> None:
    own = fresh("[::]:4000", "0.0.0.0:4000")
    six = [f"2a00::{number}" for number in range(1, 8)]
    own.has_interfaces(parse_interfaces([*six, "9.0.0.1", "192.168.1.2"]))
    assert announced(own) == [
        "[2a00::1]:4000", "9.0.0.1:4000", "[2a00::2]:4000", "[2a00::3]:4000", "[2a00::4]:4000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.168.1.7", "192.168.1.0/24"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("fd00::7", "fd00::/64"),
        ("fe80::7%eth0", "fe80::/64"),
        ("fe80::7%eth0/10", "fe80::/10"),
    ],
)
def test_an_interface_without_a_prefix_is_in_a_network_of_the_usual_size(
    text: str, network: str
) -> None:
    (interface,) = parse_interfaces([text])
    assert str(interface.network) == network


@pytest.mark.parametrize("text", ["", "eth0", "1.2.3", "1.2.3.4/33", "1.2.3.4/24/24", "::1/129"])
def test_what_is_no_address_of_an_interface_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        parse_interfaces([text])


PORTS = st.sampled_from([4000, 4001])
SEEN = st.sampled_from([ip("9.9.9.9"), ip("9.8.8.8"), ip("2a00::9")])
LISTENING = st.lists(
    st.sampled_from(["0.0.0.0:4000", "[::]:4001", "9.0.0.1:4000", "192.168.1.2:4001"]), unique=True
)
INTERFACES = st.lists(
    st.sampled_from(["9.0.0.1", "9.0.0.2", "192.168.1.2", "2a00::1"]), unique=True
)


class OwnAddressesMachine(RuleBasedStateMachine):
    """Everything that can happen to them, in any order. What may not happen is that an address is
    announced of which nobody is sure."""

    def __init__(self) -> None:
        super().__init__()
        self.own = fresh()
        self.listening: list[Address] = []
        self.interfaces: list[bytes] = []
        self.elected: dict[int, bytes] = {}
        self.confirmed: set[Address] = set()
        self.now_s = 0.0

    @rule(texts=LISTENING)
    def listen(self, texts: list[str]) -> None:
        self.listening = list(map(address, texts))
        self.own.listen(self.listening)
        self.confirmed &= {
            Address(i, a.port) for i in self.elected.values() for a in self.listening
        }

    @rule(texts=INTERFACES)
    def interfaces_change(self, texts: list[str]) -> None:
        self.interfaces = list(map(ip, texts))
        self.own.has_interfaces(parse_interfaces(texts))

    @rule(seen=SEEN)
    def elect(self, seen: bytes) -> None:
        before = self.elected.get(len(seen))
        self.elected[len(seen)] = seen
        self.confirmed = {a for a in self.confirmed if a.ip != before or before == seen}
        self.own.elected(seen)

    @rule(seen=SEEN, port=PORTS)
    def confirm(self, seen: bytes, port: int) -> None:
        one = Address(seen, port)
        if self.elected.get(len(seen)) == seen:
            self.confirmed.add(one)
        self.own.confirmed(one, self.now_s)

    @rule(seen=SEEN, port=PORTS)
    def fail(self, seen: bytes, port: int) -> None:
        self.confirmed.discard(Address(seen, port))
        self.own.failed(Address(seen, port), "refused", self.now_s)

    @rule()
    def check_what_is_due(self) -> None:
        self.now_s += 100
        due = self.own.due(self.now_s)
        if due is not None:
            self.own.nobody_looked(due, "nobody", self.now_s)
            assert self.own.next_due_s() > self.now_s or self.own.due(self.now_s) != due

    @invariant()
    def only_what_is_sure_is_announced(self) -> None:
        ports = {a.port for a in self.listening if not any(a.ip)}
        sure = set(self.listening)
        sure |= {Address(i, port) for i in self.interfaces for port in ports}
        for one in self.own.announced:
            assert any(one.ip)
            assert one in sure or one in self.confirmed
        assert len(set(self.own.announced)) == len(self.own.announced)


TestOwnAddresses = OwnAddressesMachine.TestCase
