"""Each command runs, and in a small world ours reaches what it has to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

RowsOf = Callable[..., list[dict[str, Any]]]

SMALL = {"nodes": 30, "records": 3, "settle": 10}


def ours(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["system"] == "ours"]


def test_under_every_condition_the_latest_version_is_found(rows_of: RowsOf) -> None:
    rows = rows_of("conditions", **SMALL)
    assert len(ours(rows)) == len(rows) / 2 == 6
    for row in ours(rows):
        assert row["puts"] == row["latest"] == row["fresh latest"] == "3/3"
        assert row["get p95 s"] < 0.7
        assert row["put p95 s"] < 2.5


def test_colluders_do_not_keep_the_latest_version_from_who_asks_for_it(rows_of: RowsOf) -> None:
    rows = ours(rows_of("adversaries", percent=30, **SMALL))
    assert [row["manner"] for row in rows] == ["forge", "omit", "replay"]
    assert all(row["fresh latest"] == "3/3" for row in rows)


def test_sybils_do_not_eclipse_a_key(rows_of: RowsOf) -> None:
    rows = rows_of("eclipse", **{**SMALL, "records": 1})
    assert [row["latest"] for row in ours(rows)] == ["1/1"] * 3
    beset = [row for row in rows if row["system"] != "ours" and row["sybils in /24s"]]
    assert [row["latest"] for row in beset] == ["0/1"] * 2


def test_an_idle_network_stores_nothing(rows_of: RowsOf) -> None:
    rows = rows_of("idle", minutes=5, budget=100_000, **SMALL)
    assert [row["STOREs when idle"] for row in ours(rows)] == [0]


def test_records_are_found_while_nodes_come_and_go(rows_of: RowsOf) -> None:
    (row,) = rows_of("churn", hours=0.5, resolves=20, **SMALL)
    assert row["deaths"] > 2
    assert row["not found"] == row["of these expired"] == row["expired ones resolved"] == 0


def test_no_query_of_a_stranger_brings_more_than_three_times_its_bytes(rows_of: RowsOf) -> None:
    rows = rows_of("amplification", nodes=22, times=1)
    assert all(row["ratio"] <= 3 and row["ratio in a flood"] <= 1 for row in ours(rows))
    assert any(row["ratio"] > 3 for row in rows)


def test_the_same_seed_gives_the_same_packets_and_another_others(rows_of: RowsOf) -> None:
    one, two = rows_of("digests", nodes=12, records=2, settle=5)
    assert one["equal"] == two["equal"] == "yes"
    assert one["digest"] != two["digest"]


def test_real_nodes_are_measured_side_by_side(rows_of: RowsOf) -> None:
    rows = rows_of(
        "loopback", systems="ours,kademlia,hyperdht", nodes=8, rounds=1, operations=2, idle=0.2
    )
    assert [row["system"].split()[0] for row in rows][:2] == ["ours", "kademlia"]
    assert rows[0]["published"] == rows[0]["resolved"] == "2/2"
