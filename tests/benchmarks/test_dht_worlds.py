"""The worlds that the DHT is measured in."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.dht.plane import FAR_S, NEAR_S, STEP_S, Plane
from benchmarks.dht.sybils import places_near
from benchmarks.dht.tables import Table, percentile
from benchmarks.dht.traffic import Traffic
from lookup_dht.wire.contact import pack_ip
from lookup_dht.wire.node_id import fits
from simulations.virtual import Fixed

names = st.text(min_size=1, max_size=8)


def latency_s(plane: Plane, source: str, target: str) -> float:
    latency = plane(source, target).latency
    assert isinstance(latency, Fixed)
    return latency.seconds


@given(st.integers(), names, names, names)
def test_lines_of_a_plane_are_symmetric_bounded_and_close_triangles(
    seed: int, a: str, b: str, c: str
) -> None:
    plane = Plane(seed)
    assert NEAR_S <= latency_s(plane, a, b) <= FAR_S
    assert plane(a, b) == plane(b, a) == Plane(seed)(a, b)
    detour_s = latency_s(plane, a, c) + latency_s(plane, c, b)
    assert latency_s(plane, a, b) <= detour_s + 2 * STEP_S
    assert plane.with_loss(0.5)(a, b).loss == 0.5


@settings(max_examples=10)
@given(st.binary(min_size=20, max_size=20), st.integers())
def test_sybils_have_ids_that_fit_their_addresses_and_begin_like_the_key(
    key: bytes, seed: int
) -> None:
    rng = random.Random(seed)
    places = list(itertools.islice(places_near(key, rng), 3))
    assert len({place.address.rpartition(".")[0] for place in places}) == 3
    for place in places:
        node_id, packed = place.node_id(key, rng), pack_ip(place.address)
        assert packed is not None
        assert fits(node_id, packed)
        assert node_id[:4] == key[:4]


def test_traffic_counts_stores_and_what_is_the_doing_of_a_watched_node() -> None:
    traffic = Traffic()
    asker, asked = ("11.0.0.1", 9000), ("11.0.0.2", 9000)
    query, reply = bytes(21), b"\x01" + bytes(20)
    traffic.watch("11.0.0.1")
    traffic.packet(0.0, "udp", asker, asked, query + b"\x92\xa5store")
    traffic.packet(0.0, "udp", asked, asker, reply)
    traffic.packet(0.0, "udp", asked, asker, query + b"\x92\xaafind_value")
    traffic.packet(0.0, "udp", asker, asked, reply)
    traffic.packet(0.0, "udp", asked, asker, query + b"\x92\xa4ping")
    assert (traffic.stores, traffic.datagrams) == (1, 5)
    assert traffic.unwatch("11.0.0.1") == 4
    assert traffic.unwatch("11.0.0.1") == 0


def test_a_table_is_written_with_three_digits_and_gaps() -> None:
    table = Table("T", [{"a": 1234.5, "b": "x"}, {"a": 0.012345, "c": 7}], ["note"])
    assert table.markdown() == (
        "### T\n\n| a | b | c |\n| --- | --- | --- |\n| 1,234 | x | - |\n| 0.0123 | - | 7 |\n"
        "\n- note\n"
    )


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.95, 4), (0.0, 1)])
def test_a_percentile_is_one_of_the_values(share: float, expected: float) -> None:
    assert percentile([4, 1, 3, 2], share) == expected
