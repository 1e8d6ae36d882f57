"""Addresses that a stranger must not make this node dial, range by range."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp.reaching.address_policy import Interface, why_not_dial
from egtp.values.comm_strat import Address

NEVER = [
    "0.0.0.0",  # noqa: S104 - the point is not to dial it
    "169.254.0.1",
    "169.254.169.254",
    "192.0.0.0",
    "192.0.0.4",
    "192.0.0.7",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
]
"""Not even in a laboratory."""

PRIVATE = [
    "0.0.0.1",
    "0.255.255.255",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.170",
    "192.0.2.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "240.0.0.1",
    "255.255.255.254",
]
"""Allowed in tests and laboratories only."""

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
]

NEVER_6 = ["::", "fe80::1", "febf:ffff::1", "ff02::1", "ff0e::1", "ff05::1:3"]
PRIVATE_6 = [
    "::1",
    "fc00::1",
    "fdff:ffff::1",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:db8::1",
]
OUTSIDE_THE_GLOBAL_UNICAST_SPACE = [
    "::127.0.0.1",
    "::10.0.0.1",
    "::2",
    "::ffff:0:127.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b:1::10.0.0.1",
    "64:ff9b:1::127.0.0.1",
    "200::1",
    "4000::1",
    "8000::1",
    "fec0::1",
    "feff::1",
]
"""Compatible, translated and local-use NAT64 forms hold an IPv4 address each; the others are
nobody's, or once were a site's own."""
PUBLIC_6 = ["2606:4700::1111", "2a00::1", "2400::1", "2003::1"]


def mapped(ip: str) -> str:
    return f"::ffff:{ip}"


def six_to_four(ip: str) -> str:
    return str(ipaddress.IPv6Address((0x2002 << 112) | (int(ipaddress.IPv4Address(ip)) << 80) | 1))


def nat64(ip: str) -> str:
    return f"64:ff9b::{ip}"


FORMS: list[Callable[[str], str]] = [str, mapped, six_to_four, nat64]


def reason(ip: str, *, private_addresses: bool) -> str | None:
    return why_not_dial(Address.of(ip, 4000), private_addresses=private_addresses)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ip", NEVER)
def test_what_is_no_address_of_a_host_is_never_dialled(ip: str, form: Callable[[str], str]) -> None:
    for private_addresses in (False, True):
        assert reason(form(ip), private_addresses=private_addresses)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ip", PRIVATE)
def test_private_addresses_are_dialled_only_if_that_is_allowed(
    ip: str, form: Callable[[str], str]
) -> None:
    why = reason(form(ip), private_addresses=False)
    assert why is not None
    assert "private_addresses" in why
    assert reason(form(ip), private_addresses=True) is None


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ip", PUBLIC)
def test_public_addresses_are_dialled_up_to_the_edges_of_their_ranges(
    ip: str, form: Callable[[str], str]
) -> None:
    for private_addresses in (False, True):
        assert reason(form(ip), private_addresses=private_addresses) is None


@pytest.mark.parametrize("ip", NEVER_6)
def test_unspecified_link_local_and_multicast_ipv6_are_never_dialled(ip: str) -> None:
    for private_addresses in (False, True):
        assert reason(ip, private_addresses=private_addresses)


@pytest.mark.parametrize("ip", PRIVATE_6)
def test_private_ipv6_is_dialled_only_if_that_is_allowed(ip: str) -> None:
    assert reason(ip, private_addresses=False)
    assert reason(ip, private_addresses=True) is None


@pytest.mark.parametrize("ip", OUTSIDE_THE_GLOBAL_UNICAST_SPACE)
def test_ipv6_outside_the_global_unicast_space_is_not_dialled(ip: str) -> None:
    assert reason(ip, private_addresses=False)


@pytest.mark.parametrize("ip", PUBLIC_6)
def test_public_ipv6_is_dialled(ip: str) -> None:
    assert reason(ip, private_addresses=False) is None


NEAR = tuple(map(ipaddress.ip_interface, ("192.168.1.2/24", "10.1.0.1/16", "fd00::2/64")))
ODD = tuple(map(ipaddress.ip_interface, ("127.0.0.1/8", "::1/128", "169.254.0.1/16")))


def reason_near(ip: str, interfaces: tuple[Interface, ...] = NEAR) -> str | None:
    return why_not_dial(Address.of(ip, 4000), private_addresses=False, interfaces=interfaces)


@pytest.mark.parametrize("ip", ["192.168.1.3", "192.168.1.2", "10.1.255.254", "fd00::3"])
def test_a_private_address_on_a_shared_subnet_may_be_dialled(ip: str) -> None:
    assert reason(ip, private_addresses=False)
    assert reason_near(ip) is None


@pytest.mark.parametrize(
    "ip",
    ["192.168.2.3", "10.2.0.1", "172.16.0.1", "fd00:0:0:1::3", "127.0.0.1", "::1", "169.254.0.2"],
)
def test_no_other_private_address_may_be_dialled_though_the_machine_has_private_ones(
    ip: str,
) -> None:
    assert reason_near(ip)
    assert reason_near(ip, NEAR + ODD)


@pytest.mark.parametrize("form", FORMS[1:])
def test_a_neighbour_is_dialled_as_what_he_is_and_in_no_other_form(
    form: Callable[[str], str],
) -> None:
    assert reason_near(form("192.168.1.3"))


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16))
def test_interfaces_open_their_own_networks_and_nothing_else(ip: bytes) -> None:
    there = ipaddress.ip_address(ip)
    alone = why_not_dial(Address(ip, 1), private_addresses=False)
    near = why_not_dial(Address(ip, 1), private_addresses=False, interfaces=NEAR)
    if not any(there in interface.network for interface in NEAR):
        assert near == alone


@given(st.binary(min_size=16, max_size=16), st.booleans())
def test_every_ipv6_address_gets_an_answer_and_a_strict_node_dials_no_more_than_a_lax_one(
    ip: bytes, private_addresses: bool
) -> None:
    strict = why_not_dial(Address(ip, 1), private_addresses=False)
    lax = why_not_dial(Address(ip, 1), private_addresses=True)
    assert strict is not None or lax is None
    if ip[0] >> 5 != 1 and ip[:12] not in (
        ipaddress.IPv6Address("64:ff9b::").packed[:12],
        ipaddress.IPv6Address("::ffff:0.0.0.0").packed[:12],
    ):
        assert strict is not None, "only 2000::/3 is global unicast"


@given(st.integers(0, 2**32 - 1))
def test_every_form_of_an_ipv4_address_is_judged_like_the_address_itself(number: int) -> None:
    ip = str(ipaddress.IPv4Address(number))
    for private_addresses in (False, True):
        plain = reason(ip, private_addresses=private_addresses)
        for form in FORMS[1:]:
            assert reason(form(ip), private_addresses=private_addresses) == plain
