"""What Prometheus is told, and by whom it is asked."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egtp import Identity, Node, NodeConfig, RelayLimits
from egtp.metrics import (
    ALARMING,
    GAUGES,
    LEFT_OUT,
    NAMES,
    TOTALS,
    TROUBLES,
    Part,
    exposition,
    of_dht,
)
from egtp.metrics_server import (
    CONNECTIONS_MAX,
    REQUEST_BYTES_MAX,
    SCRAPE_TIMEOUT_S,
    serving_metrics,
)
from lookup_dht import DHTLookup
from simulations.virtual import Host, Network, simulate
from tests.programs.at_hand import Start, line, run, stop

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (-?[0-9][0-9.e+-]*)")
HELP = re.compile(rf"# HELP ({NAME}) (?:[^\\\n]|\\[\\n])+")
TYPE = re.compile(rf"# TYPE ({NAME}) (counter|gauge)")
LONG = 4_000_000
"""More than sockets and readers hold."""
GET = b"GET /metrics HTTP/1.1\r\nHost: there\r\n\r\n"


def read(text: str) -> dict[str, tuple[str, dict[str, float]]]:
    """The kind of each metric, and its values by labels. Fails for what no scraper would take."""
    assert text.endswith("\n")
    metrics: dict[str, tuple[str, dict[str, float]]] = {}
    current = explained = ""
    for text_line in text[:-1].split("\n"):
        if found := HELP.fullmatch(text_line):
            assert not explained
            explained = found[1]
            continue
        if found := TYPE.fullmatch(text_line):
            current = found[1]
            assert explained in ("", current)
            explained = ""
            assert current not in metrics, "the samples of a metric must stand together"
            metrics[current] = found[2], {}
            continue
        sample = SAMPLE.fullmatch(text_line)
        assert sample, text_line
        assert sample[1] == current
        values = metrics[current][1]
        assert (sample[2] or "") not in values, "one sample for each set of labels"
        values[sample[2] or ""] = float(sample[3])
    for name, (kind, _) in metrics.items():
        assert (kind == "counter") == name.endswith("_total")
    return metrics


@given(
    st.dictionaries(st.text(), st.integers(0)),
    st.text(),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_whatever_a_counter_is_called_a_scraper_can_read_it(
    counters: dict[str, int], network: str, figure: float
) -> None:
    statistics = {"network": network, "figure": figure, "counters": counters}
    both = [Part("a", {"ip": ip}, statistics) for ip in ("4", "6")]
    metrics = read(exposition(both))
    assert metrics["a_figure"] == ("gauge", {f'ip="{ip}"': figure for ip in ("4", "6")})
    if counters:
        kind, values = metrics["a_events_total"]
        assert (kind, len(values)) == ("counter", 2 * len(counters))
        assert sum(values.values()) == pytest.approx(2 * sum(counters.values()))


async def test_every_figure_of_a_node_and_its_dht_is_told() -> None:
    dht = DHTLookup("127.0.0.1:0", private_addresses=True)
    config = NodeConfig(private_addresses=True)
    relay = Node(
        Identity.generate(os.urandom),
        listen="127.0.0.1:0",
        lookup=dht,
        config=config,
        relay_server=RelayLimits(),
    )
    async with dht, relay:
        await relay.published()
        for part in (Part("egtp", {}, relay.statistics()), of_dht(dht.statistics())):
            known = {*GAUGES, *LEFT_OUT, *NAMES, *TOTALS, *TROUBLES, "counters"}
            assert part.statistics.keys() <= known, "is what is new a counter, or a gauge?"
            metrics = read(exposition([part]))
            for name, value in part.statistics.items():
                if name in NAMES:
                    assert f'{name}="{value}"' in "".join(metrics[f"{part.prefix}_info"][1])
                elif name not in LEFT_OUT and name != "counters" and value is not None:
                    base = name.removesuffix("_s")
                    assert any(told.startswith(f"{part.prefix}_{base}") for told in metrics)
        figures = read(exposition([Part("egtp", {}, relay.statistics())]))
        assert figures["egtp_record_not_published"] == ("gauge", {"": 0.0})
        assert figures["egtp_bytes_sent_total"][0] == "counter"
        assert figures["egtp_leases"] == ("gauge", {"": 0.0})


def test_a_record_that_nobody_stores_is_an_alarm() -> None:
    told = read(exposition([Part("egtp", {}, {"record_not_published": "no node answered"})]))
    assert told == {"egtp_record_not_published": ("gauge", {"": 1.0})}


def test_what_is_worth_an_alert_is_told_before_it_happens() -> None:
    parts = [Part(prefix, {}, {"counters": {"else": 1}}) for prefix in ALARMING]
    told = read(exposition(parts))
    for prefix, events in ALARMING.items():
        counts = told[f"{prefix}_events_total"][1]
        assert counts == {**{f'event="{event}"': 0.0 for event in events}, 'event="else"': 1.0}


def test_each_alert_of_the_operations_page_is_about_something_that_is_told() -> None:
    page = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    of_events = re.findall(r'(egtp\w*)_events_total\{event="([^"]+)"\}\[', page)
    assert {prefix: {it for p, it in of_events if p == prefix} for prefix in ALARMING} == {
        prefix: set(events) for prefix, events in ALARMING.items()
    }
    known = {*GAUGES, *TROUBLES, "events_total", *(f"{name}_total" for name in TOTALS)}
    figures = re.findall(r"\b(?:egtp_dht|egtp|process)_(\w+)(?=[ \n{\[])", page)
    assert "connections_max" in figures
    assert known.issuperset(figures)


def served(story: Callable[[Host, Network], Awaitable[None]], text: str = "x") -> None:
    """Play a story against a server at 11.0.0.1:9200 that tells of one counter."""

    async def main(network: Network) -> None:
        here, there = network.host("there", "11.0.0.1"), network.host("scraper", "11.0.0.2")
        ready, over = asyncio.Event(), asyncio.Event()

        async def serve() -> None:
            part = Part("a", {}, {"counters": {text: 1}})
            async with serving_metrics("11.0.0.1:9200", lambda: [part]):
                ready.set()
                await over.wait()

        task = here.spawn(serve())
        await ready.wait()
        await there.run(story(there, network))  # type: ignore[arg-type]
        over.set()
        await task

    simulate(main, limit_s=1000.0)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("11.0.0.1", 9200)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def scrape(request: bytes = GET) -> tuple[str, str]:
    """The status and the body, all of which have come."""
    async with connected() as (reader, writer):
        writer.write(request)
        head, body = (await reader.read()).decode().split("\r\n\r\n", 1)
    assert f"Content-Length: {len(body)}" in head
    return head.split("\r\n")[0], body


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


def test_only_get_and_only_metrics_are_answered() -> None:
    async def story(*_world: Any) -> None:
        assert (await scrape())[0] == "HTTP/1.1 200 OK"
        assert read((await scrape(GET.replace(b"metrics", b"metrics?a=b")))[1])["a_events_total"]
        assert (await scrape(GET.replace(b"metrics", b"")))[0] == "HTTP/1.1 404 Not Found"
        for strange in (GET.replace(b"GET", b"POST"), b"\r\n\r\n", bytes(9) + b"\r\n\r\n"):
            assert (await scrape(strange))[0] == "HTTP/1.1 405 Method Not Allowed"

    served(story)


def test_a_request_may_come_byte_by_byte_but_neither_slowly_nor_without_an_end() -> None:
    async def story(_: Host, network: Network) -> None:
        async with connected() as (reader, writer):
            for number in range(len(GET)):
                writer.write(GET[number : number + 1])
                await asyncio.sleep(0.01)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        async with connected() as (reader, writer):
            began_s = network.loop.now
            writer.write(GET[:-1])
            assert await is_cut(reader)
            assert network.loop.now - began_s == pytest.approx(SCRAPE_TIMEOUT_S, abs=0.5)
        async with connected() as (reader, writer):
            began_s = network.loop.now
            writer.write(b"G" * (REQUEST_BYTES_MAX + 1))
            assert await is_cut(reader)
            assert network.loop.now - began_s < 1.0

    served(story)


def test_who_connects_and_says_nothing_keeps_scrapers_out_for_seconds_only() -> None:
    async def story(*_world: Any) -> None:
        idle = [await asyncio.open_connection("11.0.0.1", 9200) for _ in range(CONNECTIONS_MAX)]
        await asyncio.sleep(1.0)
        async with connected() as (reader, _):
            assert await is_cut(reader)
        await asyncio.sleep(SCRAPE_TIMEOUT_S)
        assert (await scrape())[0] == "HTTP/1.1 200 OK"
        for _, silent in idle:
            silent.close()

    served(story)


def test_who_does_not_read_is_given_up() -> None:
    async def story(_: Host, network: Network) -> None:
        reader, writer = await asyncio.open_connection("11.0.0.1", 9200, limit=1)
        writer.write(GET)
        await asyncio.sleep(SCRAPE_TIMEOUT_S + 1.0)
        received = 0
        with suppress(ConnectionError):
            while part := await reader.read(65_536):
                received += len(part)
        assert 0 < received < LONG
        writer.close()

    served(story, "x" * LONG)


def test_the_programs_tell_prometheus_how_they_are(start: Start) -> None:
    anywhere = ("--metrics", "127.0.0.1:0")
    bootstrap = start("-m", "lookup_dht", "--listen", "127.0.0.1:0", *anywhere)
    join = ("--bootstrap", line(bootstrap).removeprefix("listening on "))
    assert line(bootstrap).startswith("node id ")
    of_bootstrap = line(bootstrap).removeprefix("metrics at ")
    relay = start("-m", "egtp", "relay", "--listen", "127.0.0.1:0", *join, *anywhere)
    while not (of_relay := line(relay)).startswith("metrics at "):
        pass
    for place, expected in (
        (of_bootstrap, {"egtp_dht_contacts", "egtp_dht_records"}),
        (of_relay.removeprefix("metrics at "), {"egtp_leases", "egtp_dht_contacts"}),
    ):
        with urlopen(place, timeout=10) as response:  # noqa: S310
            metrics = read(response.read().decode())
        assert metrics.keys() > expected
        assert metrics["process_cpu_seconds_total"][1][""] > 0
    text = run("-m", "lookup_dht", "stats", join[1]).stdout
    told = dict(each.split(maxsplit=1) for each in text.splitlines())
    assert told["over_s"] == told["uptime_s"], "a scrape is not the last time that somebody asked"
    taken = of_bootstrap.removeprefix("http://").removesuffix("/metrics")
    done = run("-m", "lookup_dht", "--listen", "127.0.0.1:0", "--metrics", taken)
    assert done.returncode == 2
    assert run("-m", "egtp", "relay", *join, "--metrics", "here").returncode == 2
    assert done.stderr == f"lookup_dht: cannot listen on {taken}: address already in use\n"
    host, port = taken.split(":")
    with socket.create_connection((host, int(port))) as idle:
        stop(relay)
        stop(bootstrap)
        assert idle.recv(1) == b""
