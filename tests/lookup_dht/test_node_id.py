"""The prefix of a node's id follows from its address."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookup_dht.wire.contact import AddressPolicy, group_of, pack_ip
from lookup_dht.wire.node_id import fits, new_node_id

# https://www.bittorrent.org/beps/bep_0042.html
VECTORS = [
    ("124.31.75.21", "5fbfbff10c5d6a4ec8a88e4c6ab4c28b95eee401"),
    ("21.75.31.124", "5a3ce9c14e7a08645677bbd1cfe7d8f956d53256"),
    ("65.23.51.170", "a5d43220bc8f112a3d426c84764f8c2a1150e616"),
    ("84.124.73.14", "1b0321dd1bb1fe518101ceef99462b947a01ff41"),
    ("43.213.53.83", "e56f6cbf5b7c4be0237986d5243b87aa6d51305a"),
]


@pytest.mark.parametrize(("ip", "node_id"), VECTORS)
def test_the_vectors_of_bep_42_fit(ip: str, node_id: str) -> None:
    assert fits(bytes.fromhex(node_id), packed(ip))
    assert not fits(bytes([int(node_id[:2], 16) ^ 1]) + bytes.fromhex(node_id)[1:], packed(ip))


@given(st.integers(min_value=0, max_value=2**32 - 1), st.booleans())
def test_a_new_id_fits_its_address_and_hardly_any_other(seed: int, v6: bool) -> None:
    entropy = random.Random(seed).randbytes
    ip = packed("2a00:1450:4001:82f::200e" if v6 else "93.184.216.34")
    node_id = new_node_id(ip, entropy)
    assert fits(node_id, ip)
    others = [bytes([93, 184 ^ bit, 1, 1]) for bit in (1, 2, 4, 8)]
    assert sum(fits(node_id, other) for other in others) < len(others)


def test_private_addresses_are_exempt_and_give_random_ids() -> None:
    assert fits(bytes(20), packed("127.0.0.1"))
    assert fits(bytes(20), packed("10.1.2.3"))
    assert new_node_id(packed("127.0.0.1"), bytes) == bytes(20)
    assert new_node_id(None, bytes) == bytes(20)
    assert new_node_id(packed("93.184.216.34"), bytes) != bytes(20)


@pytest.mark.parametrize(
    "ip",
    [
        "0.0.0.1", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.1.1",
        "172.16.0.1", "172.31.255.255", "192.168.1.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:8.8.8.8",
        "64:ff9b::808:808", "2002:0808:0808::1", "2001:db8::1", "2001::1",
    ],
)  # fmt: skip
def test_no_address_but_a_public_one_is_a_node_on_the_internet(ip: str) -> None:
    assert not AddressPolicy(private_addresses=False).allows(packed(ip))


@pytest.mark.parametrize("ip", ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2a00:1450::1"])
def test_public_addresses_are_nodes(ip: str) -> None:
    assert AddressPolicy(private_addresses=False).allows(packed(ip))


def test_in_a_lab_private_addresses_are_nodes_but_nothing_that_cannot_be_sent_to_as_it_is() -> None:
    lab = AddressPolicy(private_addresses=True)
    assert all(lab.allows(packed(ip)) for ip in ("127.0.0.1", "10.0.0.1", "::1", "fc00::1"))
    refused = (
        "0.0.0.1", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:127.0.0.1",
        "fe80::1", "febf:ffff::1",
    )  # fmt: skip
    assert not any(lab.allows(packed(ip)) for ip in refused)


def test_addresses_of_one_owner_are_taken_for_one_group() -> None:
    for one, other, same in (
        ("8.8.8.1", "8.8.8.254", True),
        ("8.8.8.1", "8.8.9.1", False),
        ("2600:1:2:3::1", "2600:1:2:ffff::9", True),
        ("2600:1:2:3::1", "2600:1:3:3::1", False),
    ):
        assert (group_of(packed(one)) == group_of(packed(other))) == same


def packed(ip: str) -> bytes:
    result = pack_ip(ip)
    assert result is not None
    return result
