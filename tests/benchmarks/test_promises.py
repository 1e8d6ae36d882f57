"""What is taken away to see what it costs is really gone, and all the rest still works."""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from benchmarks.instructions_workload import CONFIG, ask_many
from benchmarks.promises import Compared, compare, draw, memory_table, remembered_bytes, table
from benchmarks.stack import stacked_chart
from benchmarks.without import ALL, PROMISES, take_away
from egtp import Environment, Identity, Incoming, MemoryLookup, Node
from egtp.environment import NONCES_AT_FIRST
from egtp.values.message import NONCE_BYTES
from simulations.virtual import Host, Network, run_in
from simulations.virtual.datagram import DatagramTransport
from simulations.virtual.nat import Endpoint
from simulations.virtual.stream import StreamTransport

BODY = b"what must not be read by everybody"


class _Reader:
    """Sits on the line and lets everything pass."""

    def __init__(self) -> None:
        self.read = b""

    def wrote(self, _: StreamTransport, data: bytes) -> None:
        self.read += data

    def takes(self, _: StreamTransport, __: object) -> bool:
        return False

    def takes_datagram(self, _: DatagramTransport, __: bytes, ___: Endpoint) -> bool:
        return False


def _kept(promise: str | None) -> dict[str, bool]:
    """Which promises are kept for a query between two nodes that are without one."""
    kept: dict[str, bool] = {}

    async def story(network: Network) -> None:
        drawn: list[int] = []

        def node(host: Host, listen: str | tuple[()]) -> Node:
            def entropy(size: int) -> bytes:
                drawn.append(size)
                return host.entropy(size)

            return Node(
                Identity.generate(host.entropy),
                listen=listen,
                lookup=MemoryLookup(),
                config=CONFIG,
                environment=Environment(host.elapsed, host.unix_time, entropy),
            )

        here, there = network.host("asker", "11.0.0.1"), network.host("answerer", "11.0.0.2")
        asker, answerer = node(here, ()), node(there, "11.0.0.2:4000")

        async def look(query: Incoming) -> bytes:
            (asked,) = asker._running().exchanges.all()
            kept["reference"] = query._reference == sha256(bytes(asked.message)).digest()
            kept["at most once"] = answerer.statistics()["queries_remembered"] == 1
            kept["deadlines"] = len(asker._running().exchanges._hard) == 1
            return query.body

        answerer.handle("look", look)
        reader = network.tap = _Reader()
        await there.run(answerer.start())

        async def ask() -> None:
            async with asker:
                peer_id = asker.add_contact(answerer.link)
                assert await asker.query(peer_id, "look", BODY) == BODY

        await here.run(ask())
        await there.run(answerer.close())
        # Nonces are taken from entropy in stocks.
        kept["nonce"] = drawn.count(NONCES_AT_FIRST * NONCE_BYTES) > 0
        kept["encryption"] = BODY not in reader.read

    with take_away(promise) if promise else contextlib.nullcontext():
        network = Network(seed=1)
        run_in(network, story(network))
    return kept


EVERY = {"nonce", "reference", "encryption", "at most once", "deadlines"}


def test_all_promises_are_kept_unless_one_is_taken_away() -> None:
    assert _kept(None) == dict.fromkeys(EVERY, True)


@pytest.mark.parametrize("promise", [*PROMISES, ALL])
def test_what_is_taken_away_is_gone_and_nothing_else(promise: str) -> None:
    gone = EVERY if promise == ALL else {promise}
    assert {name for name, is_kept in _kept(promise).items() if not is_kept} == gone
    assert _kept(None) == dict.fromkeys(EVERY, True)


@pytest.mark.parametrize("promise", [*PROMISES, ALL])
def test_queries_are_answered_without_a_promise(promise: str) -> None:
    with take_away(promise):
        assert ask_many(300) == 300


def _facts(cpu_s: float, per_s: float) -> dict[str, Any]:
    return {
        "client_cpu_s": cpu_s, "server_cpu_s": cpu_s, "done": 1000, "per_s": per_s, "p50_us": 50.0,
        "others": 0.0,
    }  # fmt: skip


@pytest.fixture
def found() -> list[Compared]:
    """Each promise costs 2 us of 20."""
    return [
        Compared(promise, work, _facts(0.010, 900.0), _facts(0.009, 1000.0))
        for promise in (*PROMISES, ALL)
        for work in ("one at a time", "64 in flight", "1,000 in flight")
        for _ in range(3)
    ]


def test_a_cost_is_what_two_windows_differ_by(found: list[Compared], tmp_path: Path) -> None:
    lines = table(found).split("\n")
    assert (
        "| nonce | 2.00 | 2.00 | 0.90 (0.90-0.90) | 0.90 (0.90-0.90) | 1.00 (1.00-1.00) |" in lines
    )
    assert "| a query with everything | 20.00 | 20.00 | 1 | 1 | 1 |" in lines
    picture = draw(found, tmp_path).read_text(encoding="utf-8")
    assert ET.fromstring(picture).tag.endswith("svg")  # noqa: S314 - it is ours
    assert {"10.0", "2.0", "20.0"} <= {text.text for text in ET.fromstring(picture).iter()}  # noqa: S314


def test_the_parts_of_a_bar_lie_side_by_side() -> None:
    picture = ET.fromstring(stacked_chart("t", {"w": {"a": 3.0, "b": 1.0}}))  # noqa: S314
    bars = [one for one in picture.iter() if one.get("height") == "28"]
    (x, width), (after, narrow) = [(float(b.get("x", 0)), float(b.get("width", 0))) for b in bars]
    assert after == pytest.approx(x + width)
    assert width == pytest.approx(3 * narrow, abs=0.1)


def test_what_is_remembered_of_a_peer_is_weighed() -> None:
    sizes = remembered_bytes()
    idle, full, each = sizes.values()
    assert 200 < idle < 2000
    assert 200 < each < 1000
    assert full > idle
    assert f"| a peer that asked, idle | {idle:,.0f} |" in memory_table(sizes, {"kept": 1.0})


def test_real_processes_are_compared_with_and_without_each_promise() -> None:
    found = compare(rounds=1, seconds=0.05, warm_up_s=0.02)
    assert {one.promise for one in found} == {*PROMISES, ALL}
    assert all(one.kept["per_s"] > 0 and one.without["per_s"] > 0 for one in found)
